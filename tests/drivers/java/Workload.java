// What a Java application does with pgjdbc: java Workload.java URL USER CLIENTS

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

public class Workload {
    static final int ROUNDS = 12; // more than the five after which pgjdbc gives a statement a name

    static void check(boolean good, String what) {
        if (!good) throw new AssertionError(what);
    }

    interface Action {
        void run() throws SQLException;
    }

    static void refused(String state, Action action) throws SQLException {
        try {
            action.run();
        } catch (SQLException error) {
            check(state.equals(error.getSQLState()), error.toString());
            return;
        }
        throw new AssertionError("not refused with " + state);
    }

    static void statements(Connection conn, int client) throws SQLException {
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO stock VALUES (?, ?, ?)");
                PreparedStatement select = conn.prepareStatement(
                        "SELECT name FROM stock WHERE client = ? AND item = ?")) {
            for (int item = 0; item < ROUNDS; item++) {
                insert.setInt(1, client);
                insert.setInt(2, item);
                insert.setString(3, "item " + item);
                check(insert.executeUpdate() == 1, "one row");
                select.setInt(1, client);
                select.setInt(2, item);
                try (ResultSet rows = select.executeQuery()) {
                    check(rows.next() && rows.getString(1).equals("item " + item), "the name");
                }
                refused("23505", insert::executeUpdate);
            }
            for (int item = 1000; item < 1300; item++) {
                insert.setInt(1, client);
                insert.setInt(2, item);
                insert.setString(3, "of a batch");
                insert.addBatch();
            }
            check(insert.executeBatch().length == 300, "a batch");
        }
    }

    static void transactions(Connection conn, int client) throws SQLException {
        conn.setAutoCommit(false);
        for (int round = 0; round < ROUNDS; round++) {
            try (PreparedStatement update = conn.prepareStatement(
                    "UPDATE stock SET name = ? WHERE client = ?")) {
                update.setString(1, "round " + round);
                update.setInt(2, client);
                check(update.executeUpdate() == 300 + ROUNDS, "all");
                Savepoint savepoint = conn.setSavepoint();
                refused("22012", () -> conn.createStatement().execute("SELECT 1/0"));
                refused("25P02", update::executeUpdate);
                conn.rollback(savepoint);
            }
            if (round % 2 == 0) conn.commit(); else conn.rollback();
        }
        // A portal with a limit of rows.
        try (PreparedStatement select = conn.prepareStatement(
                "SELECT item FROM stock WHERE client = ? ORDER BY item")) {
            for (int round = 0; round < ROUNDS; round++) {
                select.setFetchSize(50);
                select.setInt(1, client);
                int found = 0;
                try (ResultSet rows = select.executeQuery()) {
                    while (rows.next()) found++;
                }
                check(found == 300 + ROUNDS, "rows by and by");
                conn.commit();
            }
        }
        conn.setAutoCommit(true);
    }

    static void session(Connection conn, int client) throws Exception {
        PGConnection own = conn.unwrap(PGConnection.class);
        String rows = client + "\t2000\tcopied\n" + client + "\t2001\tcopied\n";
        long copied = own.getCopyAPI().copyIn("COPY stock FROM STDIN", new StringReader(rows));
        check(copied == 2, "COPY in");
        StringWriter out = new StringWriter();
        own.getCopyAPI().copyOut(
                "COPY (SELECT * FROM stock WHERE client = " + client + " AND item >= 2000) TO STDOUT", out);
        check(out.toString().equals(rows), "COPY out");
        try (Statement statement = conn.createStatement()) {
            statement.execute("LISTEN channel_" + client);
            statement.execute("NOTIFY channel_" + client + ", 'hello'");
            PGNotification[] heard = own.getNotifications(10_000);
            check(heard != null && heard[0].getParameter().equals("hello"), "a notification");
            statement.execute("UNLISTEN *");
            conn.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            statement.execute("SET work_mem = '" + (client + 1) + "MB'");
            for (int round = 0; round < ROUNDS; round++) {
                try (ResultSet row = statement.executeQuery(
                        "SELECT current_setting('work_mem'), current_setting('transaction_isolation')")) {
                    check(row.next() && row.getString(1).equals((client + 1) + "MB"), "work_mem");
                    check(row.getString(2).equals("repeatable read"), "isolation");
                }
            }
        }
    }

    static Void client(String url, String user, int client) throws Exception {
        try (Connection conn = DriverManager.getConnection(url, user, "")) {
            statements(conn, client);
            transactions(conn, client);
            session(conn, client);
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        int clients = Integer.parseInt(args[2]);
        ExecutorService threads = Executors.newFixedThreadPool(clients);
        List<Future<Void>> all = new ArrayList<>();
        for (int n = 0; n < clients; n++) {
            int client = n;
            all.add(threads.submit(() -> client(args[0], args[1], client)));
        }
        threads.shutdown();
        for (Future<Void> each : all) each.get();
    }
}
