//! Where WebSockets do not get through, the client takes plain HTTP by itself.

use crate::support::{Device, Proxy, Scratch, Server, exit, wait_until};

const NOTES: &str = "
    CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL DEFAULT '');
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO notes SELECT 'n' || i, 'title ' || i FROM n;";

#[test]
fn se22_http_is_taken_where_web_sockets_fail() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let proxy = Proxy::without_web_sockets(server.port());
    let mut laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    laptop.url.clone_from(&proxy.url);
    scratch.database("laptop.db", NOTES);

    laptop.run("attach", &["--yes"]).expect(exit::DONE);
    laptop.run("seed", &[]).expect(exit::DONE);
    assert_eq!(proxy.refused(), 3, "three WebSockets are tried before");
    assert_eq!(laptop.verify(), 3_000);

    // Both ways, live, beside a device with a WebSocket.
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let _at_phone = phone.watch();
    let mut at_laptop = laptop.watch();
    phone.sql("UPDATE notes SET title = 'from the phone' WHERE id = 'n1'");
    at_laptop.wait_for_type("rows_changed");
    assert_eq!(
        laptop.rows("SELECT title FROM notes WHERE id = 'n1'"),
        "from the phone"
    );
    laptop.sql("UPDATE notes SET title = 'from the laptop' WHERE id = 'n2'");
    wait_until("the laptop's edit on the phone", || {
        phone.rows("SELECT title FROM notes WHERE id = 'n2'") == "from the laptop"
    });
    assert_eq!(at_laptop.terminate(), exit::DONE);
    assert_eq!(laptop.verify(), 3_000);
}
