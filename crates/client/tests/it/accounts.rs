//! Signing up, in and out, and tokens that are renewed while something syncs.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use syncline::{
    AccessToken, AccountError, Accounts, Config, ErrorKind, Event, Login, SignUp, SyncManager,
    Tables, TokenError, blocking,
};

use crate::support::{Bed, NOTES, rows, sql, until, wait_for};

const ANA: (&str, &str) = ("ana@example.com", "three brown foxes");
const BEN: (&str, &str) = ("ben@example.com", "four quick red hens");

fn accounts(bed: &Bed) -> Accounts {
    let accounts = Accounts::new(bed.url()).unwrap();
    accounts.keep_logins_in(bed.path("logins"))
}

async fn signed_up(accounts: &Accounts, (email, password): (&str, &str)) -> Login {
    match accounts.sign_up(email, password).await.unwrap() {
        SignUp::SignedIn(login) => login,
        SignUp::Mailed => panic!("a server with --dev sends no mail"),
    }
}

/// The only login that is kept.
fn kept(bed: &Bed) -> PathBuf {
    let files = std::fs::read_dir(bed.path("logins")).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let is_login = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "json");
    files.find(is_login).unwrap()
}

fn kept_as_json(bed: &Bed) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(kept(bed)).unwrap()).unwrap()
}

/// Has the kept token end soon, as far as this machine knows.
fn ends_in(bed: &Bed, left: Duration) {
    let mut login = kept_as_json(bed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end = now.unwrap() + left;
    login["expires_ms"] = u64::try_from(end.as_millis()).unwrap().into();
    std::fs::write(kept(bed), login.to_string()).unwrap();
}

#[tokio::test]
async fn lb22_people_sign_up_in_and_out_and_their_login_is_kept() {
    let bed = Bed::dev();
    let accounts = accounts(&bed);
    assert!(accounts.login().unwrap().is_none());
    let login = signed_up(&accounts, ANA).await;
    let user = login.current_user().await.unwrap();
    assert_eq!((&user, user.email.as_str()), (&login.user(), ANA.0));
    let taken = accounts.sign_up(ANA.0, ANA.1).await.unwrap_err();
    assert_eq!(taken, AccountError::EmailTaken);
    let weak = accounts.sign_up(BEN.0, "password1234").await.unwrap_err();
    assert!(matches!(weak, AccountError::WeakPassword(_)), "{weak}");
    let none = accounts.sign_up("no address", BEN.1).await.unwrap_err();
    assert!(matches!(none, AccountError::Malformed(_)), "{none}");

    // Another program finds it; what is kept has no password in it, and nobody else reads it.
    let found = self::accounts(&bed).login().unwrap().unwrap();
    assert_eq!(found.user(), user);
    let text = std::fs::read_to_string(kept(&bed)).unwrap();
    assert!(!text.contains(ANA.1) && !format!("{found:?}").contains("slr_"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(kept(&bed)), mode(bed.path("logins"))), (0o600, 0o700));
    }

    login.sign_out().await.unwrap();
    assert!(accounts.login().unwrap().is_none());
    let gone = found.access_token().await.unwrap_err();
    assert!(matches!(gone, AccountError::SignedOut(_)), "{gone}");
    login.sign_out().await.unwrap();
}

#[tokio::test]
async fn lb22_a_wrong_password_is_told_and_the_next_attempts_have_to_wait() {
    let bed = Bed::dev();
    let accounts = accounts(&bed);
    signed_up(&accounts, ANA).await;
    let before = kept_as_json(&bed);
    let mut errors = Vec::new();
    for _ in 0..8 {
        errors.push(accounts.sign_in(ANA.0, "not it at all").await.unwrap_err());
    }
    assert_eq!(errors[0], AccountError::Credentials);
    let Some(AccountError::TooFast { wait }) = errors.last() else {
        panic!("{errors:?}")
    };
    assert!(
        !wait.is_zero() && *wait <= Duration::from_secs(900),
        "{wait:?}"
    );
    assert!(
        errors[7].to_string().contains("try again in"),
        "{}",
        errors[7]
    );
    assert_eq!(kept_as_json(&bed), before, "the login that there was stays");
}

#[tokio::test]
async fn lb22_a_changed_password_ends_other_logins_and_codes_are_good_or_stale() {
    let bed = Bed::dev();
    let here = accounts(&bed);
    let there = Accounts::new(bed.url()).unwrap();
    let there = there.keep_logins_in(bed.path("elsewhere"));
    let login = signed_up(&here, ANA).await;
    let other = there.sign_in(ANA.0, ANA.1).await.unwrap();
    let wrong = login.change_password("not it at all", BEN.1).await;
    assert_eq!(wrong.unwrap_err(), AccountError::Credentials);
    login.change_password(ANA.1, BEN.1).await.unwrap();
    login.current_user().await.unwrap();
    let over = other.current_user().await.unwrap_err();
    assert!(matches!(over, AccountError::SignedOut(_)), "{over}");
    let again = there.sign_in(ANA.0, BEN.1).await.unwrap();
    login.sign_out_everywhere().await.unwrap();
    let over = again.current_user().await.unwrap_err();
    assert!(matches!(over, AccountError::SignedOut(_)), "{over}");

    here.forgot_password(ANA.0).await.unwrap();
    here.forgot_password("nobody@example.com").await.unwrap();
    here.send_verification_again(ANA.0).await.unwrap();
    for stale in [
        here.reset_password("no-code", BEN.1).await,
        here.verify_email("no-code").await,
    ] {
        let stale = stale.unwrap_err();
        assert!(matches!(stale, AccountError::Stale(_)), "{stale:?}");
    }
}

#[test]
fn lb22_accounts_need_no_runtime_and_say_when_nobody_answers() {
    let mut bed = Bed::dev();
    let accounts = accounts(&bed);
    let SignUp::SignedIn(login) = blocking::wait(accounts.sign_up(ANA.0, ANA.1)).unwrap() else {
        panic!("a server with --dev sends no mail")
    };
    bed.stop();
    let away = blocking::wait(accounts.sign_in(ANA.0, ANA.1)).unwrap_err();
    assert!(
        matches!(away, AccountError::Unreachable(_)) && away.is_retryable(),
        "{away:?}"
    );
    let away = blocking::wait(login.sign_out_everywhere()).unwrap_err();
    assert!(matches!(away, AccountError::Unreachable(_)), "{away:?}");
    assert!(accounts.login().unwrap().is_some());
    let away = blocking::wait(login.sign_out()).unwrap_err();
    assert!(matches!(away, AccountError::Unreachable(_)), "{away:?}");
    assert!(accounts.login().unwrap().is_none(), "it is gone from here");
    for strange in ["ftp://host", "http://host/path"] {
        assert_eq!(
            Accounts::new(strange).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}

/// Live, and in step.
async fn live(bed: &Bed, file: &str, config: Config) -> (SyncManager, syncline::Events) {
    bed.file(file, NOTES);
    let sync = SyncManager::open(bed.path(file), config).await.unwrap();
    let mut events = sync.events();
    sync.start_auto_sync();
    wait_for(&mut events, |event| {
        matches!(event, Event::SyncCompleted(_)).then_some(())
    })
    .await;
    (sync, events)
}

/// A note written into `file` is the server's a moment later.
async fn passes_on(bed: &Bed, file: &str, id: &str) {
    sql(
        &bed.path(file),
        &format!("INSERT INTO notes VALUES ('{id}', 'x', NULL)"),
    );
    let query = format!("SELECT count(*) FROM notes WHERE id = '{id}'");
    until("the note is at the server", || bed.at_server(&query) == "1").await;
}

/// Nothing was said about the connection since.
fn stayed_connected(events: &mut syncline::Events) {
    while let Some(event) = events.try_next() {
        assert!(
            !matches!(
                event,
                Event::Connected { .. } | Event::Disconnected { .. } | Event::SyncError(_)
            ),
            "{event:?}"
        );
    }
}

#[tokio::test]
async fn lb23_a_login_is_renewed_on_the_open_connection_and_the_next_token_is_on_disk() {
    let bed = Bed::dev();
    signed_up(&accounts(&bed), ANA).await;
    let before = kept_as_json(&bed);
    ends_in(&bed, Duration::from_secs(4));
    let login = accounts(&bed).login().unwrap().unwrap();
    let (sync, mut events) = live(&bed, "notes.db", Config::new().login(&login)).await;
    until("the refresh token was used", || {
        kept_as_json(&bed)["refresh_token"] != before["refresh_token"]
    })
    .await;
    let after = kept_as_json(&bed);
    assert_ne!(after["access_token"], before["access_token"]);
    assert_eq!(after["signed_in_ms"], before["signed_in_ms"]);
    passes_on(&bed, "notes.db", "n1").await;
    stayed_connected(&mut events);
    sync.close().await;
}

#[tokio::test]
async fn lb23_programs_that_share_a_login_use_each_refresh_token_once() {
    let bed = Bed::dev();
    signed_up(&accounts(&bed), ANA).await;
    for round in 0..5 {
        ends_in(&bed, Duration::ZERO);
        // Each as another program has it, and all at once.
        let tokens = (0..6).map(|_| {
            let login = accounts(&bed).login().unwrap().unwrap();
            tokio::spawn(async move { login.access_token().await })
        });
        let mut given = Vec::new();
        for token in tokens.collect::<Vec<_>>() {
            given.push(token.await.unwrap().unwrap());
        }
        given.dedup();
        assert_eq!(given.len(), 1, "round {round}");
    }
    let audit = "SELECT count(*) FROM syncline_audit WHERE kind = 'refresh_reused'";
    assert_eq!(bed.at_server(audit), "0");
    let refreshed = bed.at_server("SELECT count(*) FROM syncline_logins");
    assert_eq!(refreshed, "1");
}

#[tokio::test]
async fn lb23_a_token_that_the_server_does_not_take_any_more_is_followed_by_another() {
    let bed = Bed::dev();
    let login = signed_up(&accounts(&bed), ANA).await;
    // As far as this machine knows it is good for long: a clock that was put back.
    let mut kept = kept_as_json(&bed);
    let good = kept["access_token"].as_str().unwrap().to_owned();
    kept["access_token"] = format!("{}x", &good[..good.len() - 4]).into();
    std::fs::write(self::kept(&bed), kept.to_string()).unwrap();
    drop(login);
    let login = accounts(&bed).login().unwrap().unwrap();
    assert_eq!(login.current_user().await.unwrap().email, ANA.0);
    kept["refresh_token"] = kept_as_json(&bed)["refresh_token"].clone();
    std::fs::write(self::kept(&bed), kept.to_string()).unwrap();
    let login = accounts(&bed).login().unwrap().unwrap();
    bed.file("notes.db", NOTES);
    let config = Config::new().login(&login);
    let sync = SyncManager::open(bed.path("notes.db"), config)
        .await
        .unwrap();
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(sync.devices().await.unwrap().len(), 1);
    sync.close().await;
}

#[tokio::test]
async fn lb24_a_login_that_ended_stops_sync_and_the_next_one_of_the_same_user_goes_on() {
    let bed = Bed::dev();
    let accounts = accounts(&bed);
    let login = signed_up(&accounts, ANA).await;
    let (sync, mut events) = live(&bed, "notes.db", Config::new().login(&login)).await;
    // From another device.
    let elsewhere = Accounts::new(bed.url()).unwrap();
    let elsewhere = elsewhere.keep_logins_in(bed.path("elsewhere"));
    let other = elsewhere.sign_in(ANA.0, ANA.1).await.unwrap();
    other.sign_out_everywhere().await.unwrap();
    let reason = wait_for(&mut events, |event| match event {
        Event::SignedOut { reason } => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert!(
        reason.contains("sign in again") && reason.contains(ANA.0),
        "{reason}"
    );
    sql(
        &bed.path("notes.db"),
        "INSERT INTO notes VALUES ('n1', 'waits', NULL)",
    );
    let error = sync.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Authentication, "signed_out")
    );
    let status = sync.status().await.unwrap().unwrap();
    assert_eq!((status.waiting, status.deregistered), (1, false));
    assert_eq!(rows(&bed.path("notes.db"), "SELECT id FROM notes"), "n1");

    // Somebody else's file it is not.
    let ben = signed_up(&accounts, BEN).await;
    sync.update_config(|config| config.login(&ben)).unwrap();
    let error = sync.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.code(), "wrong_user");
    let again = accounts.sign_in(ANA.0, ANA.1).await.unwrap();
    sync.update_config(|config| config.login(&again)).unwrap();
    until("what waited is at the server", || {
        bed.at_server("SELECT title FROM notes") == "waits"
    })
    .await;
    sync.close().await;
}

#[tokio::test]
async fn lb23_an_apps_own_provider_is_asked_before_its_token_ends() {
    let bed = Bed::dev();
    let asked = Arc::new(AtomicU32::new(0));
    let provider = {
        let (asked, token) = (Arc::clone(&asked), bed.short_tokens("ana", 4));
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let token = token();
            async move { Ok::<_, TokenError>(AccessToken::new(&token)) }
        }
    };
    let config = Config::new().token_provider(bed.url(), provider).unwrap();
    let (sync, mut events) = live(&bed, "notes.db", config).await;
    // The server takes a token for ten seconds more than it says: a session that is not renewed
    // has ended by then.
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(asked.load(Ordering::Relaxed) >= 4);
    passes_on(&bed, "notes.db", "n1").await;
    stayed_connected(&mut events);
    sync.close().await;
}

#[tokio::test]
async fn lb24_a_provider_without_a_token_is_asked_again_and_one_that_signed_out_is_not() {
    let bed = Bed::dev();
    let token = bed.token("ana");
    let asked = Arc::new(AtomicU32::new(0));
    let provider = {
        let asked = Arc::clone(&asked);
        move || {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            let token = token.clone();
            async move {
                match n {
                    0 => Err(TokenError::Later("the provider is away".into())),
                    1 => panic!("a bug of the app"),
                    2 => Ok(AccessToken::new(&token)),
                    _ => Err(TokenError::SignedOut("the session expired".into())),
                }
            }
        }
    };
    bed.file("notes.db", NOTES);
    let config = Config::new().token_provider(bed.url(), provider).unwrap();
    let sync = SyncManager::open(bed.path("notes.db"), config.clone())
        .await
        .unwrap();
    let mut events = sync.events();
    let error = sync.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::NotConnected, "no_token_now")
    );
    assert!(
        error.to_string().contains("the provider is away"),
        "{error}"
    );
    sync.start_auto_sync();
    wait_for(&mut events, |event| {
        matches!(event, Event::SyncCompleted(_)).then_some(())
    })
    .await;
    let other = bed.path("other.db");
    let other = SyncManager::open(other, config).await.unwrap();
    other.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        asked.load(Ordering::Relaxed),
        3,
        "those with one provider have one token"
    );
    sync.close().await;
    other.close().await;
}

/// Passes on what comes, except the answer on the next connection once it is told to: that one is
/// cut.
fn lossy(bed: &Bed) -> (String, Arc<AtomicBool>) {
    let there = bed.url().trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let loses = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&loses);
    std::thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            let there = TcpStream::connect(&there).unwrap();
            let (mut from, mut to) = (here.try_clone().unwrap(), there.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to, is_lost) = (there, here, Arc::clone(&is_lost));
            std::thread::spawn(move || {
                let mut bytes = [0; 4_096];
                while let Ok(read @ 1..) = from.read(&mut bytes) {
                    if is_lost.swap(false, Ordering::SeqCst) {
                        drop(to.shutdown(Shutdown::Both));
                        return;
                    }
                    to.write_all(&bytes[..read]).unwrap();
                }
                drop(to.shutdown(Shutdown::Both));
            });
        }
    });
    (url, loses)
}

#[tokio::test]
async fn lb23_an_answer_with_the_next_refresh_token_may_get_lost() {
    let bed = Bed::dev();
    let (url, loses) = lossy(&bed);
    let accounts = Accounts::new(&url)
        .unwrap()
        .keep_logins_in(bed.path("logins"));
    let login = signed_up(&accounts, ANA).await;
    let before = kept_as_json(&bed);
    ends_in(&bed, Duration::ZERO);
    loses.store(true, Ordering::SeqCst);
    login.access_token().await.unwrap();
    assert!(!loses.load(Ordering::SeqCst), "an answer was lost");
    assert_ne!(kept_as_json(&bed)["refresh_token"], before["refresh_token"]);
    ends_in(&bed, Duration::ZERO);
    let login = accounts.login().unwrap().unwrap();
    login.access_token().await.unwrap();
    let audit = "SELECT count(*) FROM syncline_audit WHERE kind = 'refresh_reused'";
    assert_eq!(bed.at_server(audit), "0");
}
