//! Tables that sync on demand: what a session sends of them (docs/spec/demand.md).

use syncline_core::{
    RowKey, TableNumber, Value, Version,
    wire::{ClientMessage, RowState, ServerMessage, Subscribe, Subscription, code, encode_client},
};

use crate::{
    bed::{Bed, SUBSCRIPTIONS_MAX},
    client::Client,
};

fn project(bed: &mut Bed, id: &str) {
    bed.write("ada", |draw| {
        draw.insert("projects", id, &[("name", "Garden".into())])
    });
}

fn task(bed: &mut Bed, id: &str, project: &str) -> Version {
    bed.write("ada", |draw| {
        let row = [("project_id", project.into()), ("title", "dig".into())];
        draw.insert("tasks", id, &row)
    })
}

fn member(bed: &mut Bed, id: &str, project: &str) -> Version {
    bed.write("ada", |draw| {
        let row = [
            ("project_id", project.into()),
            ("user_id", "bob".into()),
            ("role", "editor".into()),
        ];
        draw.insert("members", id, &row)
    })
}

fn of_project(bed: &Bed, id: &str) -> Subscription {
    let key = RowKey::encode([&Value::from(id)]).expect("a key");
    Subscription {
        table: bed.table("projects"),
        column: None,
        key: Some(key.as_bytes().to_vec()),
    }
}

/// Two projects with a task each; Bob is in the first.
fn bed() -> Bed {
    let mut bed = Bed::on_demand();
    for (id, of) in [("t1", "p1"), ("t2", "p2")] {
        project(&mut bed, of);
        task(&mut bed, id, of);
    }
    member(&mut bed, "m1", "p1");
    bed
}

fn bob(bed: &mut Bed, subscriptions: Option<Vec<Subscription>>) -> Client {
    let mut bob = Client::new(bed, "bob");
    bob.hello.subscriptions = subscriptions;
    bob.greet(bed);
    bob
}

fn ask(bed: &mut Bed, client: &mut Client, number: u64, add: Vec<Subscription>) {
    let drop = Vec::new();
    let subscribe = Subscribe { number, add, drop };
    client.say(bed, &ClientMessage::Subscribe(subscribe));
}

/// How many rows of a table were heard of, in pages and records.
fn rows_of(client: &Client, table: TableNumber) -> usize {
    let pages = client.page_rows();
    let records = client.records();
    let records = records.iter().map(|(body, _)| body.table);
    let tables = pages.iter().map(|body| body.table).chain(records);
    tables.filter(|found| *found == table).count()
}

/// Nothing but a turn to read brings it on, and it may wait long for that.
#[test]
fn li10_a_session_that_is_to_read_has_no_alarm_in_the_past() {
    let mut bed = bed();
    let mut bob = bob(&mut bed, Some(Vec::new()));
    let late = bed.world.now.plus_millis(40_000);
    assert!(bob.session.poll_timeout() < late, "its checkpoint is due");
    let subscribe = Subscribe {
        number: 1,
        add: vec![of_project(&bed, "p1")],
        drop: Vec::new(),
    };
    let frame = encode_client(&ClientMessage::Subscribe(subscribe));
    bob.session.receive(&frame, late);
    assert!(bob.session.needs_storage());
    assert!(bob.session.poll_timeout() > late);
}

#[test]
fn su6_what_one_may_not_see_is_answered_like_what_does_not_exist() {
    let mut bed = bed();
    let mut heard = Vec::new();
    for id in ["p2", "no such project"] {
        let mut bob = bob(&mut bed, Some(Vec::new()));
        bob.heard.clear();
        let asked = of_project(&bed, id);
        ask(&mut bed, &mut bob, 1, vec![asked]);
        let checkpoint = bob.checkpoints().last().map(|c| (c.subscribed, c.loading));
        assert_eq!(checkpoint, Some((1, 0)), "it was heard");
        let lengths: Vec<usize> = bob.heard.iter().map(|(_, length)| *length).collect();
        heard.push((bob.words(), lengths));
    }
    assert_eq!(heard[0], heard[1]);
}

#[test]
fn su6_rows_come_with_a_permission_and_go_with_it_although_the_subscription_stays() {
    let mut bed = bed();
    let tasks = bed.table("tasks");
    let asked = of_project(&bed, "p2");
    let mut bob = bob(&mut bed, Some(vec![asked]));
    assert_eq!(rows_of(&bob, tasks), 0);

    let joined = member(&mut bed, "m2", "p2");
    bob.listen(&mut bed);
    assert_eq!(rows_of(&bob, tasks), 1);
    let gained: usize = bob.grants().iter().map(|grants| grants.add.len()).sum();

    bob.heard.clear();
    bed.write("ada", |draw| draw.delete("members", "m2", joined));
    bob.listen(&mut bed);
    let lost: usize = bob.grants().iter().map(|grants| grants.drop.len()).sum();
    assert!(
        lost >= 2,
        "of the project and of its tasks: {lost} of {gained}"
    );
    bob.heard.clear();
    task(&mut bed, "t3", "p2");
    bob.listen(&mut bed);
    assert_eq!(rows_of(&bob, tasks), 0);
}

#[test]
fn su2_su8_changes_come_while_subscribed_and_only_of_what_is_granted() {
    let mut bed = bed();
    let tasks = bed.table("tasks");
    let mut bob = bob(&mut bed, Some(Vec::new()));
    task(&mut bed, "t3", "p1");
    bob.listen(&mut bed);
    assert_eq!(rows_of(&bob, tasks), 0, "nobody asked");

    let (first, second) = (of_project(&bed, "p1"), of_project(&bed, "p2"));
    ask(&mut bed, &mut bob, 1, vec![first.clone(), second]);
    assert_eq!(rows_of(&bob, tasks), 2);
    task(&mut bed, "t4", "p1");
    task(&mut bed, "t5", "p2");
    bob.listen(&mut bed);
    assert_eq!(rows_of(&bob, tasks), 3, "the other project is not Bob's");

    bob.heard.clear();
    let subscribe = Subscribe {
        number: 2,
        add: Vec::new(),
        drop: vec![first],
    };
    bob.say(&mut bed, &ClientMessage::Subscribe(subscribe));
    assert_eq!(bob.grants()[0].drop.len(), 1, "the tasks, not the project");
    task(&mut bed, "t6", "p1");
    bob.listen(&mut bed);
    assert_eq!(rows_of(&bob, tasks), 0);
}

#[test]
fn su3_a_reconnect_loads_nothing_again() {
    let mut bed = bed();
    let asked = of_project(&bed, "p1");
    let mut bob = bob(&mut bed, Some(vec![asked]));
    assert_eq!(rows_of(&bob, bed.table("tasks")), 1);
    bob.reconnect(&mut bed);
    assert!(bob.grants().is_empty() && bob.pages().is_empty());
    task(&mut bed, "t3", "p1");
    bob.listen(&mut bed);
    assert_eq!(rows_of(&bob, bed.table("tasks")), 1, "what is new");
}

#[test]
fn su5_no_more_subscriptions_than_allowed() {
    let mut bed = bed();
    let many: Vec<Subscription> = (0..=SUBSCRIPTIONS_MAX)
        .map(|n| of_project(&bed, &format!("p{}", SUBSCRIPTIONS_MAX + 1 - n)))
        .collect();
    let mut bob = bob(&mut bed, Some(many));
    let refused = |client: &Client| {
        let found = client.messages().find_map(|message| match message {
            ServerMessage::Refusal(refusal) => Some(refusal.clone()),
            _ => None,
        });
        found.expect("a refusal")
    };
    let refusal = refused(&bob);
    assert_eq!(refusal.code, code::TOO_MANY_SUBSCRIPTIONS);
    assert!(refusal.message.contains("8"), "{}", refusal.message);
    assert!(!refusal.fatal && !bob.session.is_closed());
    assert_eq!(rows_of(&bob, bed.table("tasks")), 0, "the first are taken");

    bob.heard.clear();
    let last = of_project(&bed, "p1");
    ask(&mut bed, &mut bob, 1, vec![last]);
    assert_eq!(refused(&bob).code, code::TOO_MANY_SUBSCRIPTIONS);
    assert_eq!(rows_of(&bob, bed.table("tasks")), 0);
}

#[test]
fn su5_who_asks_and_takes_no_answers_is_told_to_slow_down() {
    let mut bed = bed();
    let mut bob = waiting(&mut bed);
    let many = with_keys(&bed, 5_000, 5);
    for number in 1..=5 {
        assert!(!bob.session.is_closed());
        ask(&mut bed, &mut bob, number, many.clone());
    }
    assert_eq!(bob.refusal().code, code::TOO_FAST);
    assert!(bob.refusal().retry);
}

/// A session of Bob's without credit, so that what it asks for waits.
fn waiting(bed: &mut Bed) -> Client {
    let mut bob = Client::new(bed, "bob");
    bob.hello.subscriptions = Some(Vec::new());
    bob.hello.credit = 1;
    bob.greet(bed);
    bob
}

/// Different subscriptions to keys of about this many bytes.
fn with_keys(bed: &Bed, count: usize, length: usize) -> Vec<Subscription> {
    let all = (0..count).map(|n| of_project(bed, &format!("{n:0length$}")));
    all.collect()
}

#[test]
fn su5_as_many_as_there_can_be_may_take_the_place_of_as_many() {
    let mut bed = bed();
    let mut bob = waiting(&mut bed);
    let (add, drop) = (with_keys(&bed, 10_000, 90), with_keys(&bed, 10_000, 91));
    let number = 1;
    bob.say(
        &mut bed,
        &ClientMessage::Subscribe(Subscribe { number, add, drop }),
    );
    assert!(!bob.session.is_closed());
    ask(&mut bed, &mut bob, 2, Vec::new());
    assert_eq!(bob.refusal().code, code::TOO_FAST);
}

#[test]
fn su5_the_bytes_of_what_waits_are_bounded() {
    let mut bed = bed();
    let mut bob = waiting(&mut bed);
    let many = with_keys(&bed, 120, 8_000);
    for number in 1..=2 {
        ask(&mut bed, &mut bob, number, many.clone());
        assert!(!bob.session.is_closed());
    }
    ask(&mut bed, &mut bob, 3, many);
    assert_eq!(bob.refusal().code, code::TOO_FAST);
}

#[test]
fn su5_the_bytes_of_what_is_subscribed_to_are_bounded() {
    let mut bed = bed();
    bed.allow_subscriptions(10_000);
    for (count, is_refused) in [(130, false), (132, true)] {
        let many = with_keys(&bed, count, 8_000);
        let bob = bob(&mut bed, Some(many));
        let mut refusals = bob.messages().filter_map(|message| match message {
            ServerMessage::Refusal(refusal) => Some(refusal.code.as_str()),
            _ => None,
        });
        let expected = is_refused.then_some(code::TOO_MANY_SUBSCRIPTIONS);
        assert_eq!(refusals.next(), expected, "{count}");
    }
}

#[test]
fn su5_what_is_no_key_is_not_kept() {
    let mut bed = bed();
    let mut many: Vec<Subscription> = (0..SUBSCRIPTIONS_MAX)
        .map(|n| Subscription {
            key: Some(vec![0; 100 + n as usize]),
            ..of_project(&bed, "p1")
        })
        .collect();
    many.push(of_project(&bed, "p1"));
    let mut bob = bob(&mut bed, Some(Vec::new()));
    ask(&mut bed, &mut bob, 1, many);
    assert_eq!(rows_of(&bob, bed.table("tasks")), 1, "there is room for it");
}

#[test]
fn su7_a_replica_that_says_nothing_of_subscriptions_is_sent_everything() {
    let mut bed = bed();
    let bob = bob(&mut bed, None);
    assert_eq!(rows_of(&bob, bed.table("tasks")), 1);
    let most = bob.welcome().subscriptions_max;
    assert_eq!(most, Some(SUBSCRIPTIONS_MAX), "others are told");
}

#[test]
fn su4_the_end_of_a_subscription_is_told_apart_from_that_of_a_permission() {
    let mut bed = bed();
    let joined = member(&mut bed, "m2", "p2");
    let (first, second) = (of_project(&bed, "p1"), of_project(&bed, "p2"));
    let mut bob = bob(&mut bed, Some(vec![first.clone(), second]));
    bob.heard.clear();
    let subscribe = Subscribe {
        number: 1,
        add: Vec::new(),
        drop: vec![first],
    };
    bob.say(&mut bed, &ClientMessage::Subscribe(subscribe));
    let grants = bob.grants();
    assert_eq!(grants[0].drop.len(), 1);
    assert_eq!(grants[0].released, grants[0].drop);

    bob.heard.clear();
    bed.write("ada", |draw| draw.delete("members", "m2", joined));
    bob.listen(&mut bed);
    let grants = bob.grants();
    assert_eq!((grants[0].drop.len(), grants[0].released.len()), (2, 0));
}

#[test]
fn su4_a_row_that_only_leaves_what_is_subscribed_to_is_told_apart_from_one_that_is_taken_away() {
    let mut bed = bed();
    project(&mut bed, "p3");
    member(&mut bed, "m3", "p3");
    let asked = of_project(&bed, "p1");
    let mut bob = bob(&mut bed, Some(vec![asked]));
    for (id, to, state) in [
        ("t8", "p3", RowState::Released),
        ("t9", "p2", RowState::Removed),
    ] {
        let there = task(&mut bed, id, "p1");
        bob.listen(&mut bed);
        bob.heard.clear();
        bed.write("ada", |draw| {
            draw.set("tasks", id, there, &[("project_id", to.into())])
        });
        bob.listen(&mut bed);
        let (body, buckets) = bob.records().remove(0);
        assert_eq!((&body.state, buckets.len()), (&state, 0), "to {to}");
        assert_eq!(body.author, "");
    }
}

#[test]
fn su2_what_is_asked_for_at_once_is_granted_at_once() {
    let mut bed = bed();
    member(&mut bed, "m2", "p2");
    let (first, second) = (of_project(&bed, "p1"), of_project(&bed, "p2"));
    let mut bob = bob(&mut bed, Some(Vec::new()));
    bob.heard.clear();
    ask(&mut bed, &mut bob, 1, vec![first.clone(), second]);
    assert_eq!(bob.grants().len(), 1, "however many they are");
    assert_eq!(bob.grants()[0].add.len(), 2);

    // What another subscription has in the same breath is neither lost nor loaded again.
    let by_value = Subscription {
        table: bed.table("tasks"),
        column: Some(bed.column("tasks", "project_id")),
        key: first.key.clone(),
    };
    bob.heard.clear();
    let subscribe = Subscribe {
        number: 2,
        add: vec![by_value],
        drop: vec![first],
    };
    bob.say(&mut bed, &ClientMessage::Subscribe(subscribe));
    assert!(bob.grants().is_empty() && bob.pages().is_empty());
    task(&mut bed, "t7", "p1");
    bob.listen(&mut bed);
    assert_eq!(bob.records().len(), 1);
}

#[test]
fn su5_what_is_beyond_the_limit_is_told_as_released() {
    let mut bed = bed();
    let mut many: Vec<Subscription> = (0..SUBSCRIPTIONS_MAX)
        .map(|n| of_project(&bed, &format!("x{n}")))
        .collect();
    many.push(of_project(&bed, "p1"));
    many.push(of_project(&bed, "p2"));
    let bob = bob(&mut bed, Some(many));
    let grants = bob.grants();
    assert!(grants[0].full);
    assert_eq!(grants[0].released.len(), 1, "p2 is not Bob's");
    assert!(!grants[0].add.contains(&grants[0].released[0]));
}

#[test]
fn su4_who_was_sent_everything_and_asks_for_some_is_told_what_is_released() {
    let mut bed = bed();
    member(&mut bed, "m2", "p2");
    let mut bob = bob(&mut bed, None);
    assert_eq!(rows_of(&bob, bed.table("tasks")), 2);
    let first = of_project(&bed, "p1");
    bob.hello.subscriptions = Some(vec![first]);
    bob.reconnect(&mut bed);
    let grants = bob.grants();
    assert!(grants[0].full);
    assert_eq!(grants[0].released.len(), 1, "the other project's tasks");
    assert!(!grants[0].add.contains(&grants[0].released[0]));

    bob.reconnect(&mut bed);
    assert!(bob.grants().is_empty(), "nothing else is news");
}
