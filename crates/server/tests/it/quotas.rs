//! How many rows a device may load (spec LI7).

use syncline_core::{
    RowKey, Value,
    wire::{
        ClientMessage, LoadPosition, Refusal, ReloadReason, Resume, ServerMessage, Subscribe,
        Subscription, code,
    },
};
use syncline_store::{rebuild_rules, testkit::block_on};

use crate::{
    bed::Bed,
    client::{Client, PLENTY},
};

fn label(bed: &mut Bed, name: &'static str) {
    bed.write("ada", |draw| {
        draw.insert("labels", name, &[("name", name.into())])
    });
}

/// A project of `ada` that bob is let into, with so many tasks: three rows for him besides, his
/// membership being in two buckets.
fn project(bed: &mut Bed, id: &'static str, tasks: usize) {
    bed.write("ada", |draw| {
        let member = [
            ("project_id", id.into()),
            ("user_id", "bob".into()),
            ("role", "editor".into()),
        ];
        let mut draw = draw.insert("projects", id, &[("name", "Garden".into())]);
        draw = draw.insert("members", format!("m {id}"), &member);
        for number in 0..tasks {
            let row = [("project_id", id.into()), ("title", "dig".into())];
            draw = draw.insert("tasks", format!("{id} {number}"), &row);
        }
        draw
    });
}

fn rows_of(bed: &Bed, client: &Client, table: &str) -> usize {
    let table = bed.table(table);
    let rows = client.page_rows();
    rows.iter().filter(|body| body.table == table).count()
}

/// All of a table, from the start.
fn whole(bed: &Bed, table: &str) -> LoadPosition {
    LoadPosition {
        bucket: None,
        table: bed.table(table),
        after: None,
    }
}

fn refusals(client: &Client) -> Vec<&Refusal> {
    let refusals = client.messages().filter_map(|message| match message {
        ServerMessage::Refusal(refusal) => Some(refusal),
        _ => None,
    });
    refusals.collect()
}

/// How many parts are still loading, and whether there is nothing more to come.
fn state(client: &Client) -> (u64, bool) {
    let last = client.checkpoints().last().copied();
    last.map(|checkpoint| (checkpoint.loading, checkpoint.caught_up))
        .expect("a checkpoint")
}

#[test]
fn li7_a_device_that_would_hold_too_many_rows_is_told_and_loads_none_of_them() {
    let mut bed = Bed::new();
    for name in ["a", "b", "c"] {
        label(&mut bed, name);
    }
    bed.limit_device_rows(3);
    let mut first = Client::connected(&mut bed, "bob");
    assert_eq!((first.page_rows().len(), state(&first)), (3, (0, true)));
    assert!(refusals(&first).is_empty());

    // What it has grows on: it is counted when something is loaded.
    label(&mut bed, "d");
    first.heard.clear();
    first.listen(&mut bed);
    assert_eq!(first.records().len(), 1);

    let mut second = Client::connected(&mut bed, "bob/new");
    let [refusal] = refusals(&second)[..] else {
        panic!("one refusal: {:?}", second.words());
    };
    assert_eq!(refusal.code, code::TOO_MANY_ROWS);
    assert!(!refusal.fatal && !refusal.retry && !second.session.is_closed());
    assert!(refusal.message.contains("would hold 4 rows"), "{refusal:?}");
    assert!(second.page_rows().is_empty(), "nothing of it");
    let (loading, caught_up) = state(&second);
    assert!(loading > 0 && caught_up, "and it does not seem complete");
    let labels = bed.table("labels");
    let has_labels = |client: &Client| client.live().iter().any(|part| part.table == labels);
    assert!(!has_labels(&second));

    // What it writes is taken all the same.
    second.heard.clear();
    let written = second.write(&mut bed, |draw| {
        draw.insert("labels", "e", &[("name", "e".into())])
    });
    assert!(
        second
            .checkpoints()
            .iter()
            .any(|c| c.cursor.version >= written)
    );
    assert!(second.page_rows().is_empty() && !has_labels(&second));

    for name in ["a", "b"] {
        bed.write("ada", |draw| {
            draw.delete("labels", name, syncline_core::Version(u64::MAX >> 12))
        });
    }
    second.listen(&mut bed);
    second.prepare_reconnect(&mut bed);
    second.hello.cursors.clear();
    second.greet(&mut bed);
    assert_eq!((second.page_rows().len(), state(&second)), (3, (0, true)));
}

#[test]
fn li7_subscriptions_that_are_too_much_wait_until_others_end() {
    let mut bed = Bed::on_demand();
    for (project, task) in [("p1", "t1"), ("p2", "t2")] {
        bed.write("ada", |draw| {
            let member = [
                ("project_id", project.into()),
                ("user_id", "bob".into()),
                ("role", "editor".into()),
            ];
            let draw = draw.insert("projects", project, &[("name", "Garden".into())]);
            let draw = draw.insert("members", format!("m {project}"), &member);
            let row = [("project_id", project.into()), ("title", "dig".into())];
            draw.insert("tasks", task, &row)
        });
    }
    let tasks = bed.table("tasks");
    let of_project = |bed: &Bed, id: &str| Subscription {
        table: bed.table("projects"),
        column: None,
        key: Some(
            RowKey::encode([&Value::from(id)])
                .expect("a key")
                .as_bytes()
                .to_vec(),
        ),
    };
    let of_tasks = |client: &Client| {
        let rows = client.page_rows();
        rows.iter().filter(|body| body.table == tasks).count()
    };
    // Projects, and memberships in two buckets each, and one task.
    bed.limit_device_rows(7);
    let mut bob = Client::new(&mut bed, "bob");
    bob.hello.subscriptions = Some(vec![of_project(&bed, "p1")]);
    bob.greet(&mut bed);
    assert_eq!((of_tasks(&bob), state(&bob)), (1, (0, true)));

    bob.heard.clear();
    let second = of_project(&bed, "p2");
    let subscribe = Subscribe {
        number: 1,
        add: vec![second],
        drop: Vec::new(),
    };
    bob.say(&mut bed, &ClientMessage::Subscribe(subscribe));
    assert_eq!(refusals(&bob)[0].code, code::TOO_MANY_ROWS);
    assert_eq!(of_tasks(&bob), 0);
    assert!(state(&bob).0 > 0);

    bob.heard.clear();
    let first = of_project(&bed, "p1");
    let subscribe = Subscribe {
        number: 2,
        add: Vec::new(),
        drop: vec![first],
    };
    bob.say(&mut bed, &ClientMessage::Subscribe(subscribe));
    assert!(refusals(&bob).is_empty(), "{:?}", bob.words());
    assert_eq!((of_tasks(&bob), state(&bob)), (1, (0, true)));
}

#[test]
fn li7_what_a_device_holds_loads_again_however_much_it_is() {
    let mut bed = Bed::new();
    for name in ["a", "b", "c"] {
        label(&mut bed, name);
    }
    let mut client = Client::synced(&mut bed, "bob");
    bed.world.now = bed.world.now.plus_millis(1);
    let (plan, now) = (&bed.context.plan, bed.world.now);
    block_on(rebuild_rules(&mut bed.world.storage, plan, now)).expect("computed anew");
    bed.restart();
    bed.limit_device_rows(2);

    // As far as the first checkpoint, then the connection breaks.
    client.prepare_reconnect(&mut bed);
    client.hello.credit = 1;
    client.greet(&mut bed);
    let Resume::Reload { reason, .. } = client.welcome().resume else {
        panic!("it loads again: {:?}", client.words());
    };
    assert_eq!(reason, ReloadReason::Rules);
    while client.checkpoints().is_empty() {
        client.credit(&mut bed, 1);
    }
    assert!(client.page_rows().is_empty());
    client.prepare_reconnect(&mut bed);
    client.hello.credit = PLENTY;
    client.hello.loading = vec![whole(&bed, "labels")];
    let as_new = client.hello.clone();
    client.hello.loads_again = true;
    client.greet(&mut bed);
    assert_eq!(client.welcome().resume, Resume::Continue);
    assert!(refusals(&client).is_empty(), "{:?}", client.words());
    assert_eq!((client.page_rows().len(), state(&client)), (3, (0, true)));

    // Without a break, too.
    client.prepare_reconnect(&mut bed);
    client.hello.cursors = as_new.cursors[1..].to_vec();
    client.hello.loading.clear();
    client.hello.loads_again = false;
    client.greet(&mut bed);
    assert_ne!(client.welcome().resume, Resume::Continue);
    assert!(refusals(&client).is_empty(), "{:?}", client.words());
    assert_eq!((client.page_rows().len(), state(&client)), (3, (0, true)));
    // And what it has been sent is repaired.
    client.heard.clear();
    let labels = whole(&bed, "labels");
    client.load(&mut bed, vec![labels]);
    assert!(refusals(&client).is_empty(), "{:?}", client.words());
    assert_eq!((client.page_rows().len(), state(&client)), (3, (0, true)));
}

#[test]
fn li7_nothing_more_is_always_loaded() {
    let mut bed = Bed::new();
    project(&mut bed, "p1", 0);
    let mut client = Client::synced(&mut bed, "bob");
    bed.restart();
    bed.limit_device_rows(1);
    client.prepare_reconnect(&mut bed);
    client.hello.loading = vec![whole(&bed, "tasks")];
    client.greet(&mut bed);
    assert_eq!(client.welcome().resume, Resume::Continue);
    assert!(refusals(&client).is_empty(), "{:?}", client.words());
    assert!(!client.live().is_empty());
    assert_eq!(state(&client), (0, true));
}

#[test]
fn li7_nobody_is_kept_from_what_is_theirs_by_being_let_into_something_large() {
    let mut bed = Bed::new();
    project(&mut bed, "huge", 20);
    project(&mut bed, "p1", 2);
    for name in ["a", "b"] {
        label(&mut bed, name);
    }
    bed.limit_device_rows(12);
    let mut bob = Client::connected(&mut bed, "bob");
    let [refusal] = refusals(&bob)[..] else {
        panic!("one refusal: {:?}", bob.words());
    };
    assert_eq!(refusal.code, code::TOO_MANY_ROWS);
    assert_eq!(rows_of(&bed, &bob, "labels"), 2);
    assert_eq!(rows_of(&bed, &bob, "tasks"), 2, "those of the small one");
    let (loading, caught_up) = state(&bob);
    assert!(loading > 0 && caught_up);

    // He is let out, and holds all that he may see.
    bob.heard.clear();
    let newest = syncline_core::Version(u64::MAX >> 12);
    bed.write("ada", |draw| draw.delete("members", "m huge", newest));
    bob.listen(&mut bed);
    assert!(refusals(&bob).is_empty(), "{:?}", bob.words());
    assert_eq!(state(&bob), (0, true));
}
