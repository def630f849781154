//! `syncline login`, `logout` and `whoami`, and commands that sync as who signed in.

use std::{
    io::Write as _,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::{Outcome, Scratch, Server, exit, rows, sql, wait_until};

const ANA: &str = "ana@example.com";
const PASSWORD: &str = "three brown foxes";
const NOTES: &str = "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT)";

/// Runs a command with a password on its standard input.
fn with_password(scratch: &Scratch, home: &str, password: &str, args: &[&str]) -> Outcome {
    let mut command = scratch.command(args);
    command
        .args(["--password-stdin", "--json"])
        .env("SYNCLINE_HOME", scratch.path(home))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("run the binary");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end before it reads.
    let _closed = writeln!(stdin, "{password}");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn sign_up(scratch: &Scratch, server: &Server<'_>) -> serde_json::Value {
    let args = ["login", "--server", &server.url, "--sign-up", ANA];
    let signed_in = with_password(scratch, "home", PASSWORD, &args);
    signed_in.expect(exit::DONE).one("signed_in")
}

fn sign_in(scratch: &Scratch, home: &str, server: &Server<'_>, password: &str) -> Outcome {
    let args = ["login", "--server", &server.url, ANA];
    with_password(scratch, home, password, &args)
}

/// The file of the one login.
fn login_file(scratch: &Scratch) -> PathBuf {
    let files = std::fs::read_dir(scratch.path("home/logins")).expect("logins are kept");
    let mut files = files.map(|file| file.expect("a file").path());
    let is_login = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "json");
    files.find(is_login).expect("a login")
}

fn kept(scratch: &Scratch) -> serde_json::Value {
    let text = std::fs::read_to_string(login_file(scratch)).expect("a login");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn lb22_who_signed_in_syncs_without_a_token_until_signed_out() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    scratch
        .run(&["whoami"])
        .expect(exit::UNAUTHORIZED)
        .says(&["nobody is signed in"]);
    scratch.run(&["login", ANA]).expect(exit::NO_SERVER);
    let no_terminal = scratch.run(&["login", ANA, "--server", &server.url]);
    no_terminal.expect(exit::USAGE).says(&["--password-stdin"]);
    let signed_in = sign_up(&scratch, &server);
    assert_eq!(
        (&signed_in["email"], &signed_in["url"]),
        (&ANA.into(), &server.url.clone().into())
    );
    let who = scratch.run(&["whoami"]).expect(exit::DONE).one("whoami");
    assert_eq!(
        (&who["user"], &who["reached"]),
        (&signed_in["user"], &true.into())
    );
    let said = scratch.say(&["whoami"]).expect(exit::DONE).stdout;
    assert!(said.starts_with(ANA) && !said.contains("slr_"), "{said}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(login_file(&scratch))
            .expect("it is there")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    // Two devices, with nothing said of a server or a token.
    let laptop = scratch.database("laptop.db", NOTES);
    sql(&laptop, "INSERT INTO notes VALUES ('n1', 'Milk')");
    scratch
        .run(&["attach", "laptop.db", "--yes"])
        .expect(exit::DONE);
    scratch.run(&["sync", "laptop.db"]).expect(exit::DONE);
    scratch.run(&["hydrate", "phone.db"]).expect(exit::DONE);
    let phone = scratch.path("phone.db");
    assert_eq!(rows(&phone, "SELECT title FROM notes"), "Milk");
    scratch
        .run(&["sync", "phone.db", "--server", &server.url])
        .expect(exit::DONE);
    let devices = scratch
        .run(&["devices", "phone.db", "list"])
        .expect(exit::DONE);
    assert_eq!(devices.all("device").len(), 2);
    scratch
        .run(&["history", "phone.db", "notes", "n1"])
        .expect(exit::DONE);
    scratch.run(&["verify", "phone.db"]).expect(exit::DONE);
    let health = scratch
        .run(&["doctor", "phone.db"])
        .expect(exit::DONE)
        .one("health");
    assert_eq!(health["health"], "healthy");
    let health = scratch.run(&["doctor"]).expect(exit::DONE).one("health");
    assert_eq!(health["health"], "healthy");

    let out = scratch
        .run(&["logout"])
        .expect(exit::DONE)
        .one("signed_out");
    assert_eq!(
        (&out["email"], &out["reached"]),
        (&ANA.into(), &true.into())
    );
    sql(&phone, "INSERT INTO notes VALUES ('n2', 'Salt')");
    let over = scratch
        .run(&["sync", "phone.db"])
        .expect(exit::UNAUTHORIZED);
    over.says(&["sign in again", &server.url]);
    scratch.run(&["logout"]).expect(exit::UNAUTHORIZED);
    sign_in(&scratch, "home", &server, PASSWORD).expect(exit::DONE);
    scratch.run(&["sync", "phone.db"]).expect(exit::DONE);
    scratch.run(&["sync", "laptop.db"]).expect(exit::DONE);
    assert_eq!(
        rows(&laptop, "SELECT title FROM notes ORDER BY id"),
        "Milk\nSalt"
    );
}

#[test]
fn lb22_a_token_is_taken_before_a_login_and_one_that_ended_is_not_kept_to() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    let user = sign_up(&scratch, &server)["user"]
        .as_str()
        .expect("an id")
        .to_owned();
    let token = server.token("ben");
    let who = scratch.run(&["whoami", "--server", &server.url, "--token", &token]);
    assert_eq!(who.expect(exit::DONE).one("whoami")["user"], "ben");
    // The same person with a token of the operator's, which ends.
    let token = server.token_with(&["--user", &user, "--ttl", "2s"]);
    scratch.database("notes.db", NOTES);
    let given = [
        "sync",
        "notes.db",
        "--server",
        &server.url,
        "--token",
        &token,
    ];
    scratch.run(&given).expect(exit::DONE);
    std::thread::sleep(Duration::from_secs(2));
    scratch.run(&["sync", "notes.db"]).expect(exit::DONE);
    let audit = scratch.run(&["audit", "--data", "data", "--kind", "refresh_reused"]);
    assert!(audit.expect(exit::DONE).all("audit_record").is_empty());
    // It is the login that is remembered now.
    scratch.run(&["logout"]).expect(exit::DONE);
    scratch
        .run(&["sync", "notes.db"])
        .expect(exit::UNAUTHORIZED)
        .says(&["sign in again"]);
}

#[test]
fn lb22_a_wrong_password_and_too_many_of_them_are_told_apart() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    sign_up(&scratch, &server);
    let wrong = sign_in(&scratch, "home", &server, "not it at all").expect(exit::UNAUTHORIZED);
    assert_eq!(wrong.one("error")["code"], "wrong_credentials");
    let mut outcomes: Vec<Outcome> = (0..8)
        .map(|_| sign_in(&scratch, "home", &server, "not it at all"))
        .collect();
    let last = outcomes.pop().expect("one of eight");
    let last = last.expect(exit::REFUSED).says(&["try again in"]);
    assert_eq!(last.one("error")["code"], "too_fast");
    // Who is signed in stays so.
    scratch.run(&["whoami"]).expect(exit::DONE);
    let taken = ["login", "--server", &server.url, "--sign-up", ANA];
    with_password(&scratch, "home", PASSWORD, &taken).expect(exit::ALREADY_THERE);
    let weak = [
        "login",
        "--server",
        &server.url,
        "--sign-up",
        "ben@example.com",
    ];
    with_password(&scratch, "home", "password1234", &weak).expect(exit::USAGE);
}

#[test]
fn lb23_a_watch_goes_on_with_the_next_token_on_its_connection() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    sign_up(&scratch, &server);
    let before = kept(&scratch);
    // As far as this machine knows it ends soon.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let end = u64::try_from((now + Duration::from_secs(6)).as_millis()).expect("before 584556019");
    let mut soon = before.clone();
    soon["expires_ms"] = end.into();
    std::fs::write(login_file(&scratch), soon.to_string()).expect("written");

    let laptop = scratch.database("laptop.db", NOTES);
    let mut watch = scratch.start(&["sync", "laptop.db", "--watch"]);
    watch.wait_for_type("live");
    wait_until("the next token is on the disk", || {
        kept(&scratch)["refresh_token"] != before["refresh_token"]
    });
    sql(&laptop, "INSERT INTO notes VALUES ('n1', 'Milk')");
    wait_until("the note is at the server", || {
        rows(&server.database(), "SELECT count(*) FROM notes") == "1"
    });
    // Both ways, and without a word about the connection.
    scratch.run(&["hydrate", "phone.db"]).expect(exit::DONE);
    sql(
        &scratch.path("phone.db"),
        "INSERT INTO notes VALUES ('n2', 'Salt')",
    );
    scratch.run(&["sync", "phone.db"]).expect(exit::DONE);
    watch.wait_for("the other note", |line| {
        let kind = line["type"].as_str().unwrap_or_default();
        assert!(
            !matches!(kind, "connected" | "disconnected" | "error"),
            "{line}"
        );
        kind == "rows_changed" && line["keys"].to_string().contains("n2")
    });
    assert_eq!(watch.terminate(), exit::DONE);
}

#[test]
fn lb24_a_login_that_ends_elsewhere_ends_a_watch_which_says_what_to_do() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    sign_up(&scratch, &server);
    let laptop = scratch.database("laptop.db", NOTES);
    let mut watch = scratch.start(&["sync", "laptop.db", "--watch"]);
    watch.wait_for_type("live");
    sign_in(&scratch, "elsewhere", &server, PASSWORD).expect(exit::DONE);
    let mut everywhere = scratch.command(&["logout", "--everywhere", "--json"]);
    let everywhere = Outcome::of(everywhere.env("SYNCLINE_HOME", scratch.path("elsewhere")));
    assert_eq!(
        everywhere.expect(exit::DONE).one("signed_out")["everywhere"],
        true
    );
    let error = watch.wait_for_type("error");
    assert_eq!(error["code"], "signed_out");
    assert_eq!(watch.wait(), exit::UNAUTHORIZED);
    assert!(watch.stderr().contains("sign in again"));
    sql(&laptop, "INSERT INTO notes VALUES ('n1', 'waits')");
    scratch
        .run(&["whoami"])
        .expect(exit::UNAUTHORIZED)
        .says(&["sign in again", ANA]);
    // Whose account it was is known.
    let again = ["login", "--server", &server.url];
    with_password(&scratch, "home", PASSWORD, &again).expect(exit::DONE);
    scratch.run(&["sync", "laptop.db"]).expect(exit::DONE);
    assert_eq!(rows(&server.database(), "SELECT title FROM notes"), "waits");
}

#[test]
fn de9_a_device_whose_login_died_with_it_is_wiped_all_the_same() {
    let scratch = Scratch::new();
    let server = Server::dev(&scratch, "data");
    sign_up(&scratch, &server);
    let laptop = scratch.database("laptop.db", NOTES);
    sql(&laptop, "INSERT INTO notes VALUES ('n1', 'Milk')");
    scratch.run(&["sync", "laptop.db"]).expect(exit::DONE);
    sign_in(&scratch, "elsewhere", &server, PASSWORD).expect(exit::DONE);
    let at_phone = |args: &[&str]| {
        let mut command = scratch.command(args);
        Outcome::of(
            command
                .arg("--json")
                .env("SYNCLINE_HOME", scratch.path("elsewhere")),
        )
    };
    at_phone(&["hydrate", "phone.db"]).expect(exit::DONE);
    let phone = at_phone(&["status", "phone.db"])
        .expect(exit::DONE)
        .one("status");
    let phone = phone["device"].as_str().expect("an id");
    scratch
        .run(&["devices", "laptop.db", "remove", phone, "--wipe"])
        .expect(exit::DONE);
    wait_until("the phone's login has ended", || {
        at_phone(&["whoami"]).code == exit::UNAUTHORIZED
    });
    at_phone(&["sync", "phone.db"])
        .expect(exit::DEREGISTERED)
        .one("wiped");
    assert_eq!(
        rows(&scratch.path("phone.db"), "SELECT count(*) FROM notes"),
        "0"
    );
    scratch.run(&["sync", "laptop.db"]).expect(exit::DONE);
}
