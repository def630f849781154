//! Integer keys that two devices made without knowing of each other (spec OB10).

use crate::support::{Device, Scratch, Server, exit, open, rows, sync_all};

const SHOP: &str = "
    CREATE TABLE customers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers (id) ON DELETE CASCADE, text TEXT);
    CREATE TABLE lines (order_id INTEGER REFERENCES orders, n INTEGER, text TEXT, PRIMARY KEY (order_id, n));
    CREATE VIRTUAL TABLE orders_fts USING fts5(text, content='orders', content_rowid='id');
    CREATE TRIGGER o_ai AFTER INSERT ON orders BEGIN INSERT INTO orders_fts(rowid, text) VALUES (new.id, new.text); END;
    CREATE TRIGGER o_ad AFTER DELETE ON orders BEGIN INSERT INTO orders_fts(orders_fts, rowid, text) VALUES ('delete', old.id, old.text); END;
    CREATE TRIGGER o_au AFTER UPDATE ON orders BEGIN
      INSERT INTO orders_fts(orders_fts, rowid, text) VALUES ('delete', old.id, old.text);
      INSERT INTO orders_fts(rowid, text) VALUES (new.id, new.text); END;";

/// Each of these orders with who ordered it and what is in it, told by words and not by numbers.
const BY_WORDS: &str = "
    SELECT c.name, o.text, group_concat(l.text, ' ') FROM customers c
    LEFT JOIN orders o ON o.customer_id = c.id
    LEFT JOIN (SELECT * FROM lines ORDER BY order_id, n) l ON l.order_id = o.id GROUP BY c.id, o.id ORDER BY 1, 2";

fn device<'a>(scratch: &'a Scratch, server: &Server<'_>, file: &str) -> Device<'a> {
    let device = Device::new(scratch, server, file, "ana");
    scratch.database(file, SHOP);
    device.run("attach", &["--yes"]).expect(exit::DONE);
    device.sync();
    device
}

fn order(device: &Device<'_>, customer: &str, text: &str) {
    let conn = open(&device.file);
    conn.execute("INSERT INTO customers (name) VALUES (?1)", [customer])
        .expect("a customer");
    let customer = conn.last_insert_rowid();
    conn.execute(
        "INSERT INTO orders (customer_id, text) VALUES (?1, ?2)",
        (customer, text),
    )
    .expect("an order");
    let order = conn.last_insert_rowid();
    for n in 1..3 {
        let line = format!("{text}{n}");
        conn.execute("INSERT INTO lines VALUES (?1, ?2, ?3)", (order, n, line))
            .expect("a line");
    }
}

fn found(device: &Device<'_>, word: &str) -> String {
    device.rows(&format!(
        "SELECT o.text FROM orders_fts f JOIN orders o ON o.id = f.rowid WHERE orders_fts MATCH '{word}'"
    ))
}

#[test]
fn ob10_rows_of_the_same_number_are_kept_apart_with_all_that_refers_to_them() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let laptop = device(&scratch, &server, "laptop.db");
    let phone = device(&scratch, &server, "phone.db");
    // Offline: both count from one.
    for i in 0..3 {
        order(&laptop, &format!("laptop{i}"), &format!("apple{i}"));
        order(&phone, &format!("phone{i}"), &format!("pear{i}"));
    }
    phone.sql("UPDATE orders SET text = 'quince' WHERE text = 'pear2'");
    laptop.sync();
    let told = phone.sync();
    assert!(!told.all("rekeyed").is_empty(), "{told:#?}");
    sync_all(&[&laptop, &phone]);
    let expected = "laptop0|apple0|apple01 apple02\nlaptop1|apple1|apple11 apple12\nlaptop2|apple2|apple21 apple22\n\
                    phone0|pear0|pear01 pear02\nphone1|pear1|pear11 pear12\nphone2|quince|pear21 pear22";
    for device in [&laptop, &phone] {
        assert_eq!(device.rows(BY_WORDS), expected);
        assert_eq!(device.rows("PRAGMA foreign_key_check"), "");
        open(&device.file)
            .execute_batch("INSERT INTO orders_fts(orders_fts, rank) VALUES ('integrity-check', 1)")
            .expect("the index says what the table says");
        assert_eq!(found(device, "pear1"), "pear1");
        assert_eq!(found(device, "apple1"), "apple1");
        assert_eq!(found(device, "quince"), "quince");
    }
    let ids = "SELECT id, name FROM customers ORDER BY id";
    assert_eq!(laptop.rows(ids), phone.rows(ids));
    assert_eq!(rows(&server.database(), ids), phone.rows(ids));
    assert_eq!(laptop.verify(), phone.verify());

    // What is made later begins above all of them, on both, so nothing has to move that is known.
    let top = phone.rows("SELECT max(id) FROM customers");
    for device in [&laptop, &phone] {
        let next = device.rows("SELECT seq FROM sqlite_sequence WHERE name = 'customers'");
        let (next, top): (i64, i64) = (
            next.parse().expect("a number"),
            top.parse().expect("a number"),
        );
        assert!(next >= top, "{next} {top}");
    }
    order(&laptop, "later", "fig");
    sync_all(&[&laptop, &phone]);
    order(&phone, "latest", "date");
    let told = phone.sync();
    assert!(told.all("rekeyed").is_empty(), "{told:#?}");
    sync_all(&[&laptop, &phone]);
    assert_eq!(laptop.rows(BY_WORDS), phone.rows(BY_WORDS));
    assert_eq!(laptop.rows(ids), phone.rows(ids));
}
