-- What pgbench -S does, by clients each of which has set its search_path once, to its own.
\if :done = 0
SET search_path TO tenant_:client_id, public;
\set done 1
\endif
\set aid random(1, 100000 * 10)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
