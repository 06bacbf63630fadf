"""SQLAlchemy, core and ORM: with its pool over psycopg, and async over asyncpg."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import ForeignKey, create_engine, func, insert, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

from tests.drivers.conftest import CLIENTS, Shop

ROUNDS = 8


class Base(DeclarativeBase):
    """Of the tables below."""


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    orders: Mapped[list[Order]] = relationship(cascade="all, delete-orphan")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    amount: Mapped[int]


def _name(client: int, number: int) -> str:
    return f"customer {number} of {client}"


def _orm(engine: Engine, client: int) -> None:
    for number in range(ROUNDS):
        with Session(engine) as session, session.begin():
            orders = [Order(amount=amount) for amount in range(5)]
            session.add(Customer(name=_name(client, number), orders=orders))
        with Session(engine) as session:
            wanted = select(Customer).where(Customer.name == _name(client, number))
            customer = session.scalars(wanted.options(selectinload(Customer.orders))).one()
            assert sorted(order.amount for order in customer.orders) == list(range(5))
            customer.orders[0].amount += 100
            session.flush()
            with pytest.raises(IntegrityError), session.begin_nested():
                session.add(Customer(name=customer.name))
                session.flush()
            session.commit()


def _core(engine: Engine, client: int) -> None:
    with engine.connect() as conn:
        pattern = _name(client, 0).replace("0", "%", 1)
        joined = select(func.sum(Order.amount)).join_from(Order, Customer)
        total = conn.scalar(joined.where(Customer.name.like(pattern)))
        assert total == ROUNDS * (sum(range(5)) + 100)
        conn.commit()
        series = text("SELECT generate_series(1, 500)").execution_options(yield_per=50)
        many = conn.execute(series)
        assert sum(many.scalars()) == 500 * 501 // 2
        conn.rollback()
        with pytest.raises(ProgrammingError):
            conn.execute(text("SELECT * FROM no_such_table"))
        conn.rollback()
        first = conn.scalar(select(func.min(Customer.id)))
        conn.execute(insert(Order), [{"customer_id": first, "amount": 0}] * 300)
        conn.rollback()
    serial = engine.execution_options(isolation_level="AUTOCOMMIT")
    with serial.connect() as conn:
        assert conn.scalar(text("SELECT :n + 1"), {"n": client}) == client + 1


def test_on_psycopg(shop: Shop) -> None:
    engine = create_engine(shop.url("postgresql+psycopg"))
    Base.metadata.create_all(engine)

    def work(client: int) -> None:
        _orm(engine, client)
        _core(engine, client)

    with ThreadPoolExecutor(CLIENTS) as executor:
        list(executor.map(work, range(CLIENTS)))
    engine.dispose()


async def _async_orm(engine: AsyncEngine, client: int) -> None:
    for number in range(ROUNDS):
        async with AsyncSession(engine) as session, session.begin():
            orders = [Order(amount=amount) for amount in range(5)]
            session.add(Customer(name=_name(client, number), orders=orders))
        async with AsyncSession(engine) as session:
            wanted = select(Customer).where(Customer.name == _name(client, number))
            customer = (await session.scalars(wanted.options(selectinload(Customer.orders)))).one()
            assert sorted(order.amount for order in customer.orders) == list(range(5))
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    session.add(Customer(name=customer.name))
            await session.delete(customer)
            await session.commit()
    async with engine.connect() as conn:
        found = await conn.stream(text("SELECT generate_series(1, :n)"), {"n": 300})
        assert sum([value async for value in found.scalars()]) == 300 * 301 // 2
        assert await conn.scalar(select(func.count()).select_from(Customer)) is not None


def test_on_asyncpg(shop: Shop) -> None:
    async def main() -> None:
        engine = create_async_engine(shop.url("postgresql+asyncpg"))
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)
        await asyncio.gather(*(_async_orm(engine, client) for client in range(CLIENTS)))
        await engine.dispose()

    asyncio.run(main())
