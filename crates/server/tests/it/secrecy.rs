//! What a reader may not see is not sent: not by a page, not to who catches up, not when access
//! and loss meet in one changeset, and not in an answer.

use syncline_core::{
    Edit, Value, Version,
    wire::{
        ClientMessage, Credit, LoadPosition, RowBody, ServerMessage, decode_server, encode_client,
    },
};
use syncline_store::testkit::{Draw, block_on};

use crate::{
    bed::Bed,
    client::{Client, PLENTY},
};

/// Changes that somebody who may not makes all the same.
type Attempt = Box<dyn Fn(Draw<'_>) -> Draw<'_>>;

const SECRET: &str = "not-for-ben";

fn project<'a>(draw: Draw<'a>, id: &str) -> Draw<'a> {
    draw.insert("projects", id, &[("name", "Garden".into())])
}

fn member<'a>(draw: Draw<'a>, id: &str, project: &str) -> Draw<'a> {
    let values = [
        ("project_id", project.into()),
        ("user_id", "ben".into()),
        ("role", "viewer".into()),
    ];
    draw.insert("members", id, &values)
}

fn task<'a>(draw: Draw<'a>, id: &str, project: &str) -> Draw<'a> {
    let values = [("project_id", project.into()), ("title", SECRET.into())];
    draw.insert("tasks", id, &values)
}

/// Everything readable in a message, with the bodies of rows as they travel.
fn bytes_of(message: &ServerMessage) -> Vec<u8> {
    let mut bytes = format!("{message:?}").into_bytes();
    match message {
        ServerMessage::Page(page) => {
            bytes.extend(page.parts.iter().flat_map(|part| part.rows.clone()));
        }
        ServerMessage::Changes(changes) => {
            bytes.extend(
                changes
                    .records
                    .iter()
                    .flat_map(|record| record.body.clone()),
            );
        }
        _ => {}
    }
    bytes
}

#[track_caller]
fn hears_nothing_of(client: &Client, what: &str) {
    for message in client.messages() {
        let bytes = bytes_of(message);
        let found = bytes
            .windows(what.len())
            .any(|part| part == what.as_bytes());
        assert!(!found, "{what} in {message:?}");
    }
}

/// Answers a full Grants as a replica does: everything that is to be loaded again, from the start.
fn load_all(bed: &mut Bed, client: &mut Client) {
    let reload = client.grants().last().expect("grants").reload.clone();
    let mut positions = Vec::new();
    for bucket in reload {
        for table in bed.context.plan.rules().tables_of(bucket) {
            positions.push(LoadPosition {
                bucket: Some(bucket),
                table: *table,
                after: None,
            });
        }
    }
    client.load(bed, positions);
}

#[test]
fn se9_who_catches_up_hears_nothing_of_before_the_grant() {
    let mut bed = Bed::new();
    bed.write("ada", |draw| project(draw, "p"));
    let mut ben = Client::synced(&mut bed, "ben");
    ben.prepare_reconnect(&mut bed);
    let at = bed.write("ada", |draw| task(draw, "hidden-key", "p"));
    bed.write("ada", |draw| draw.delete("tasks", "hidden-key", at));
    bed.write("ada", |draw| member(draw, "m", "p"));
    ben.greet(&mut bed);
    load_all(&mut bed, &mut ben);
    assert!(!ben.page_rows().is_empty(), "the project arrives");
    hears_nothing_of(&ben, SECRET);
    hears_nothing_of(&ben, "hidden-key");
}

#[test]
fn se9_a_row_that_goes_in_the_changeset_that_brings_access_is_not_named() {
    let mut bed = Bed::new();
    let at = bed.write("ada", |draw| task(project(draw, "p"), "hidden-key", "p"));
    let mut ben = Client::synced(&mut bed, "ben");
    bed.write("ada", |draw| {
        member(draw, "m", "p").delete("tasks", "hidden-key", at)
    });
    ben.listen(&mut bed);
    assert!(!ben.page_rows().is_empty(), "the project arrives");
    hears_nothing_of(&ben, "hidden-key");
}

#[test]
fn se11_a_page_read_after_a_loss_is_not_sent() {
    let mut bed = Bed::new();
    let at = bed.write("ada", |draw| member(project(draw, "p"), "m", "p"));
    let mut ben = Client::new(&mut bed, "ben");
    // Welcome and grants are sent; the pages wait for credit.
    ben.hello.credit = 1;
    ben.greet(&mut bed);
    assert!(ben.pages().is_empty());
    // Committed, and not yet handed to the sessions.
    let lost = bed
        .world
        .push("ada/other", |draw| draw.delete("members", "m", at));
    let secret = bed.world.push("ada/other", |draw| task(draw, "t", "p"));
    let credit = encode_client(&ClientMessage::Credit(Credit {
        bytes: PLENTY,
        checkpoint: None,
    }));
    ben.session.receive(&credit, bed.world.now);
    for _ in 0..5 {
        let more = block_on(ben.session.pump(&mut bed.reader, bed.world.now));
        assert!(more.expect("memory is read"), "the log is to come first");
        while let Some(frame) = ben.session.poll_frame() {
            let message = decode_server(&frame).expect("a message");
            ben.heard.push((message, frame.len()));
        }
    }
    assert!(ben.pages().is_empty());
    bed.context.recent.push(&lost.outcome.entries);
    bed.context.recent.push(&secret.outcome.entries);
    ben.listen(&mut bed);
    let dropped = ben.grants().iter().any(|grants| !grants.drop.is_empty());
    assert!(dropped);
    assert_eq!(ben.checkpoints().last().expect("an end").loading, 0);
    hears_nothing_of(&ben, SECRET);
}

#[test]
fn ru17_a_stranger_is_sent_no_byte_of_anybody_elses_rows() {
    let mut bed = Bed::new();
    let values = [
        ("name", SECRET.into()),
        ("budget", Value::Integer(7)),
        ("tags", "[\"not-for-ben\"]".into()),
    ];
    bed.write("ada", |draw| {
        let draw = draw.insert("projects", "p-hidden", &values);
        task(draw, "t-hidden", "p-hidden").insert("notes", 1, &[("body", SECRET.into())])
    });
    let mut ben = Client::connected(&mut bed, "ben");
    let number = |value: i64| Value::Integer(value);
    let decide = Edit::Decide {
        base: number(1),
        new: number(2),
    };
    // The words he uses himself are those of requests; answers may repeat his keys only.
    let attempts: Vec<Attempt> = vec![
        Box::new(move |draw| {
            draw.edit(
                "projects",
                "p-hidden",
                Version::ZERO,
                &[("budget", decide.clone())],
            )
        }),
        Box::new(|draw| {
            draw.set(
                "projects",
                "p-hidden",
                Version::ZERO,
                &[("name", "x".into())],
            )
        }),
        Box::new(|draw| draw.insert("projects", "p-hidden", &[("name", "x".into())])),
        Box::new(|draw| draw.delete("tasks", "t-hidden", Version::ZERO)),
        Box::new(|draw| {
            let into = [("project_id", "p-hidden".into()), ("title", "x".into())];
            draw.insert("tasks", "mine", &into)
        }),
        Box::new(|draw| member(draw, "m", "p-hidden")),
        Box::new(|draw| draw.set("notes", 1, Version::ZERO, &[("body", "x".into())])),
    ];
    for attempt in &attempts {
        let changeset = ben.draw(&bed, attempt);
        ben.push(&mut bed, &changeset);
        bed.write("ada", |draw| {
            draw.set("notes", 1, Version::ZERO, &[("body", SECRET.into())])
        });
        ben.listen(&mut bed);
    }
    let loading = |name: &str| LoadPosition {
        bucket: None,
        table: bed.table(name),
        after: None,
    };
    let everything = ["projects", "tasks", "notes", "members", "labels"]
        .map(loading)
        .to_vec();
    ben.load(&mut bed, everything);
    let ada = Client::synced(&mut bed, "ada");
    let hidden = ada.session.sight().expect("it streams").buckets();
    let own = ben.session.sight().expect("it streams").clone();
    let hidden: Vec<_> = hidden.filter(|bucket| !own.sees(bucket)).collect();
    assert!(!hidden.is_empty());
    for again in [false, true] {
        if again {
            ben.reconnect(&mut bed);
        }
        assert_eq!(ben.page_rows(), Vec::<RowBody>::new());
        assert!(ben.records().is_empty());
        hears_nothing_of(&ben, SECRET);
        for bucket in &hidden {
            hears_nothing_of(&ben, &format!("{bucket:?}"));
        }
    }
}
