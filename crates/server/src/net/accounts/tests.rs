//! Whoever asks about an account that is not there costs the server what one costs that is.

use std::sync::atomic::{AtomicU64, Ordering};

use syncline_store_sqlite::SqliteStorage;

use super::*;

/// Counts transactions.
#[derive(Debug)]
struct Counted<S>(S, AtomicU64);

impl<S: AccountStore> AccountStore for Counted<S> {
    fn transact(
        &self,
        work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.transact(work)
    }
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const WORDS: &str = "three brown foxes";

struct House {
    accounts: Arc<Accounts>,
    store: Arc<Counted<syncline_store_sqlite::SqliteAccounts>>,
    _storage: SqliteStorage,
}

impl House {
    fn open(name: &str) -> Self {
        let storage = SqliteStorage::open_in_memory(name, &[1; 32]).expect("memory");
        let accounts = storage.accounts().expect("accounts");
        let store = Arc::new(Counted(accounts, AtomicU64::new(0)));
        let config = ServerConfig {
            sign_up: true,
            // Nobody listens there: what is sent is lost, which is said in the log only.
            smtp: Some("smtp://127.0.0.1:9".into()),
            mail_from: Some("App <no-reply@example.com>".into()),
            ..ServerConfig::default()
        };
        let opened = Accounts::open(
            Arc::clone(&store) as Arc<dyn AccountStore>,
            DeviceId([7; 16]),
            &config,
            false,
        );
        Self {
            accounts: Arc::new(opened.expect("accounts open")),
            store,
            _storage: storage,
        }
    }

    /// What `work` cost: passwords hashed, transactions made.
    async fn cost<T>(&self, work: impl Future<Output = T>) -> (u64, u64) {
        let now = || {
            (
                self.accounts.hasher.done(),
                self.store.1.load(Ordering::Relaxed),
            )
        };
        let before = now();
        let _answer = work.await;
        let after = now();
        (after.0 - before.0, after.1 - before.1)
    }
}

#[tokio::test]
async fn ac5_an_account_that_is_not_there_is_the_same_work() {
    let house = House::open("work");
    let accounts = &house.accounts;
    let sign_up = async |email: &str| house.cost(accounts.sign_up(email, WORDS, "", HERE)).await;
    let new = sign_up("ana@example.com").await;
    let known = sign_up("ana@example.com").await;
    assert_eq!(new, known);
    assert_eq!(new.0, 1);

    let sign_in = async |email: &str, password: &str| {
        house
            .cost(accounts.sign_in(email, password, "", HERE))
            .await
    };
    let unverified = sign_in("ana@example.com", WORDS).await;
    let wrong = sign_in("ana@example.com", "four quick red hens").await;
    let unknown = sign_in("eve@example.com", WORDS).await;
    let too_long = sign_in("ana@example.com", &"long words ".repeat(50)).await;
    assert_eq!(unknown, (1, 2));
    assert_eq!([unverified, wrong, too_long], [unknown; 3]);

    let reset = async |email: &str| house.cost(accounts.request_reset(email, HERE)).await;
    assert_eq!(
        reset("ana@example.com").await,
        reset("eve@example.com").await
    );
    let again = async |email: &str| house.cost(accounts.request_verification(email, HERE)).await;
    assert_eq!(
        again("ana@example.com").await,
        again("eve@example.com").await
    );
}

#[tokio::test]
async fn ac7_keys_change_and_old_ones_are_good_as_long_as_their_tokens() {
    let house = House::open("keys");
    let server = DeviceId([7; 16]);
    let days = |days: u64| Timestamp::from_millis(clock::now().as_millis() + days * 86_400_000);
    let load = |now| transact(&*house.store, |records| Keys::load(records, server, now));
    let kids = |keys: &Keys| -> Vec<String> {
        let keys = keys.public()["keys"].as_array().expect("a list");
        keys.iter()
            .map(|key| key["kid"].as_str().expect("a name").to_owned())
            .collect()
    };
    let first = load(days(0)).expect("keys");
    let subject = Subject {
        account: "ana".into(),
        login: LoginId([1; 16]),
        claims: BTreeMap::new(),
    };
    let token = first.issue(&subject, clock::now()).expect("a token");
    let kid = kids(&first).remove(0);
    let second = load(days(31)).expect("keys");
    assert_eq!(kids(&second).len(), 2);
    assert_ne!(kids(&second)[0], kid);
    second.verify(&token, &kid).expect("still good");
    let other = second.issue(&subject, clock::now()).expect("a token");
    second.verify(&other, &kids(&second)[0]).expect("good");
    second.verify(&other, &kid).expect_err("not of that key");
    let third = load(days(32)).expect("keys");
    assert_eq!(kids(&third), [kids(&second).remove(0)]);
    third.verify(&token, &kid).expect_err("its key is gone");
}

#[tokio::test]
async fn ac8_a_login_that_nobody_uses_ends() {
    let house = House::open("idle");
    let account = admin::add(
        &*house.store,
        "ana@example.com",
        WORDS,
        &BTreeMap::new(),
        clock::now(),
    );
    let account = account.expect("added");
    let begin = |records: &mut dyn AccountRecords| {
        refresh::begin(records, &account, "", Timestamp::from_millis(0))
    };
    let (_, token) = transact(&*house.store, begin).expect("begun");
    let gone = house.accounts.refresh(&token, HERE).await;
    assert!(matches!(gone, Err(AccountError::Stale(_))), "{gone:?}");
    // Of many logins the oldest make room.
    for _ in 0..150 {
        let begin =
            |records: &mut dyn AccountRecords| refresh::begin(records, &account, "", clock::now());
        transact(&*house.store, begin).expect("begun");
    }
    let logins = transact(&*house.store, |records| records.logins(&account.id));
    assert_eq!(logins.expect("they read").len(), 100);
}
