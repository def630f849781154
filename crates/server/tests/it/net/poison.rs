//! A changeset that makes the server's own code panic.

use std::sync::Arc;

use syncline_core::{
    Value,
    config::Config,
    wire::{SchemaInfo, ServerMessage, Verdict, code},
};
use syncline_server::net::{Auth, Backend, Options, Server};
use syncline_store::{
    StorageError, WriteKind,
    memory::{MemoryReader, MemoryStorage},
    testkit::{Draw, context_of, demo_schema},
};

use super::{Net, SECRET, Socket, changeset};

/// A storage whose triggers panic.
struct Traps(MemoryStorage);

impl Backend for Traps {
    type Storage = MemoryStorage;
    type Reader = MemoryReader;

    fn open(&self) -> Result<MemoryStorage, StorageError> {
        Ok(self.0.clone())
    }

    fn reader(storage: &MemoryStorage) -> Result<MemoryReader, StorageError> {
        Ok(storage.reader())
    }
}

async fn verdict(socket: &mut Socket) -> Verdict {
    socket
        .hear_until(|message| match message {
            ServerMessage::PushResult(result) => Some(result.verdict.clone()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_poisonous_changeset_harms_nobody_else() {
    let mut storage = MemoryStorage::new();
    let (context, _) = context_of(&mut storage, &demo_schema());
    let labels = context.schema().table("labels").expect("declared").number;
    storage.on_write(labels, WriteKind::Insert, |row| {
        assert_ne!(row.0[1], Value::from("boom"), "the trap");
        row.clone()
    });
    let options = Options {
        listen: "127.0.0.1:0".parse().expect("an address"),
        config: Config {
            schema: demo_schema(),
            ..Config::default()
        },
        allow: Vec::new(),
        dev: false,
        remember: None,
        auth: Auth::new(&SECRET).expect("long enough"),
        connections_max: 10,
    };
    let net = Net {
        server: Server::start(Arc::new(Traps(storage)), options)
            .await
            .expect("it starts"),
        auth: Auth::new(&SECRET).expect("long enough"),
        folder: tempfile::tempdir().expect("a folder"),
        http: reqwest::Client::new(),
    };
    let schema = SchemaInfo::from_schema(context.schema()).to_schema();
    let label = |id: &str, name: &str| {
        Draw::new(&schema)
            .insert("labels", id, &[("name", name.into())])
            .done()
    };
    let mut bad = net.socket("eve").await;
    let mut good = net.socket("ada").await;
    bad.sync(1).await;
    good.sync(2).await;
    for round in 1..=3_u8 {
        // Close together, so that some share a group.
        let poison = changeset(100 + round, 1, label("x", "boom"));
        let (id, name) = (format!("l{round}"), format!("name {round}"));
        let fine = changeset(round, u64::from(round), label(&id, &name));
        tokio::join!(bad.push(&poison), good.push(&fine));
        let Verdict::Refused(refusal) = verdict(&mut bad).await else {
            panic!("it cannot be committed");
        };
        assert_eq!(
            (refusal.code.as_str(), refusal.retry),
            (code::STORAGE, false)
        );
        assert!(matches!(verdict(&mut good).await, Verdict::Accepted(_)));
    }
    assert_eq!(
        net.get("/readyz").send().await.expect("an answer").status(),
        200
    );
}
