// What a Node application does with node-postgres: node workload.js HOST PORT USER DATABASE CLIENTS
'use strict'
const assert = require('node:assert')
const pg = require('pg')
const Cursor = require('pg-cursor')

const [host, port, user, database, clients] = process.argv.slice(2)
const place = { host, port: Number(port), user, database }
const ROUNDS = 12

async function statements (pool, client) {
  for (let item = 0; item < ROUNDS; item++) {
    const insert = { name: 'insert', text: 'INSERT INTO stock VALUES ($1, $2, $3)' }
    await pool.query({ ...insert, values: [client, item, `item ${item}`] })
    const select = { name: 'select', text: 'SELECT name FROM stock WHERE client = $1 AND item = $2' }
    const found = await pool.query({ ...select, values: [client, item] })
    assert.deepStrictEqual(found.rows, [{ name: `item ${item}` }])
    const unnamed = await pool.query('SELECT $1::int + 1 AS next', [item])
    assert.strictEqual(unnamed.rows[0].next, item + 1)
    await assert.rejects(pool.query('SELECT 1 / $1::int', [0]), { code: '22012' })
    await assert.rejects(pool.query({ name: 'wrong', text: 'SELEC' }), { code: '42601' })
  }
}

async function transactions (pool, client) {
  const conn = await pool.connect()
  try {
    for (let round = 0; round < ROUNDS; round++) {
      await conn.query('BEGIN')
      await conn.query('UPDATE stock SET name = $1 WHERE client = $2', ['changed', client])
      await conn.query('SAVEPOINT s')
      await assert.rejects(conn.query('INSERT INTO stock VALUES ($1, 0)', [client]), { code: '23505' })
      await conn.query('ROLLBACK TO s')
      await conn.query(round % 2 ? 'COMMIT' : 'ROLLBACK')
    }
    // Queries are sent one by one, but asked for all at once.
    const many = await Promise.all([...Array(20).keys()].map(n => conn.query('SELECT $1::int AS n', [n])))
    assert.deepStrictEqual(many.map(each => each.rows[0].n), [...Array(20).keys()])
    const several = await conn.query('SELECT 1 AS one; SELECT 2 AS two')
    assert.deepStrictEqual(several.map(each => each.rows.length), [1, 1])
  } finally {
    conn.release()
  }
}

async function rowsByAndBy (pool) {
  const conn = await pool.connect()
  try {
    await conn.query('BEGIN')
    const cursor = conn.query(new Cursor('SELECT generate_series(1, $1::int) AS n', [100]))
    let sum = 0
    for (let rows = await cursor.read(7); rows.length; rows = await cursor.read(7)) {
      for (const row of rows) sum += row.n
    }
    await cursor.close()
    await conn.query('COMMIT')
    assert.strictEqual(sum, 5050)
  } finally {
    conn.release()
  }
}

async function session (client) {
  const conn = new pg.Client({ ...place, application_name: `client ${client}`, statement_timeout: 60000 })
  await conn.connect()
  const heard = new Promise(resolve => conn.on('notification', resolve))
  await conn.query(`LISTEN channel_${client}`)
  await conn.query(`SELECT pg_notify('channel_${client}', 'hello')`)
  assert.strictEqual((await heard).payload, 'hello')
  await conn.query('UNLISTEN *')
  await conn.query("SET TIME ZONE 'Asia/Tokyo'")
  for (let round = 0; round < ROUNDS; round++) {
    const shown = await conn.query(
      "SELECT current_setting('TimeZone') AS zone, current_setting('application_name') AS name," +
      " current_setting('statement_timeout') AS timeout")
    assert.deepStrictEqual(shown.rows, [{ zone: 'Asia/Tokyo', name: `client ${client}`, timeout: '1min' }])
  }
  await conn.end()
}

async function main () {
  const pools = [new pg.Pool(place), new pg.Pool(place)]
  await Promise.all([...Array(Number(clients)).keys()].map(async client => {
    const pool = pools[client % 2]
    await statements(pool, client)
    await transactions(pool, client)
    await rowsByAndBy(pool)
    await session(client)
  }))
  await Promise.all(pools.map(pool => pool.end()))
}

main().catch(error => { console.error(error); process.exit(1) })
