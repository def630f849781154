//! How many rows a device may load (spec LI7).

use syncline_core::{
    RowKey, Value,
    wire::{ClientMessage, Refusal, ServerMessage, Subscribe, Subscription, code},
};

use crate::{bed::Bed, client::Client};

fn label(bed: &mut Bed, name: &'static str) {
    bed.write("ada", |draw| {
        draw.insert("labels", name, &[("name", name.into())])
    });
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
    assert!(second.live().is_empty());

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
    assert!(second.page_rows().is_empty() && second.live().is_empty());

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
