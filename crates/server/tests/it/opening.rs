//! Hello to the first frame of the stream.

use syncline_core::{
    BucketId, Cursor, DeviceId, Hlc, Lease, Tag, Value, Version,
    wire::{ClientMessage, LoadPosition, ReloadReason, Resume, ServerMessage, Verdict, code},
};
use syncline_store::{rebuild_rules, testkit::block_on};

use crate::{bed::Bed, client::Client};

fn project(bed: &mut Bed, id: &str) -> Version {
    bed.write("ada", |draw| {
        draw.insert("projects", id, &[("name", "Garden".into())])
    })
}

fn member(bed: &mut Bed, id: &str, project: &str, user: &str) -> Version {
    bed.write("ada", |draw| {
        draw.insert(
            "members",
            id,
            &[
                ("project_id", project.into()),
                ("user_id", user.into()),
                ("role", "editor".into()),
            ],
        )
    })
}

#[test]
fn se1_nothing_is_heard_before_hello_and_hello_only_once() {
    let mut bed = Bed::new();
    let mut client = Client::new(&mut bed, "ada");
    client.load(&mut bed, Vec::new());
    assert_eq!(client.refusal().code, code::MALFORMED);

    let mut client = Client::connected(&mut bed, "ada");
    client.greet(&mut bed);
    assert_eq!(client.refusal().code, code::MALFORMED);
    assert!(client.refusal().fatal);
}

#[test]
fn se3_a_file_of_another_server_is_refused() {
    let mut bed = Bed::new();
    let own = bed.context.server;
    for (server, refused) in [
        (DeviceId::default(), false),
        (own, false),
        (DeviceId([9; 16]), true),
    ] {
        let mut client = Client::new(&mut bed, "ada");
        client.hello.server = server;
        // The same device again: as after a lost answer.
        client.greet(&mut bed);
        if refused {
            assert_eq!(client.refusal().code, code::WRONG_SERVER);
            assert_eq!(client.words(), ["Refusal"]);
        } else {
            assert_eq!(client.welcome().server, own);
        }
    }
}

#[test]
fn se4_a_cursor_of_the_log_is_continued() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::connected(&mut bed, "ada");
    assert_eq!(
        client.welcome().resume,
        Resume::Reload {
            reason: ReloadReason::New,
            common: None
        }
    );
    client.reconnect(&mut bed);
    assert_eq!(client.welcome().resume, Resume::Continue);
    assert!(client.welcome().schema.is_none(), "the replica has it");
}

#[test]
fn se4_a_cursor_below_the_horizon_loads_again() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::synced(&mut bed, "ada");
    project(&mut bed, "p2");
    let horizon = project(&mut bed, "p3");
    project(&mut bed, "p4");
    bed.trim(horizon);
    client.reconnect(&mut bed);
    assert_eq!(
        client.welcome().resume,
        Resume::Reload {
            reason: ReloadReason::Horizon,
            common: None
        }
    );
    assert_eq!(client.welcome().horizon, horizon);
    assert_eq!(client.page_rows().len(), 4);
}

#[test]
fn se4_a_cursor_that_the_log_does_not_have_has_diverged() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::synced(&mut bed, "ada");
    let good = client.cursors[0];
    project(&mut bed, "p2");
    client.listen(&mut bed);
    let later = client.cursors[0];
    assert!(later.version > good.version);

    // The server was restored to a state in which another history follows `good`.
    let stale = syncline_store::sign_cursor(
        &bed.context.secret,
        &syncline_core::UserId("ada".into()),
        client.hello.device,
        later.version,
        Tag([0x77; 8]),
    );
    client.cursors = vec![stale, good];
    client.reconnect(&mut bed);
    assert_eq!(
        client.welcome().resume,
        Resume::Reload {
            reason: ReloadReason::Diverged,
            common: Some(good)
        }
    );
}

#[test]
fn se4_foreign_and_forged_cursors_prove_nothing() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let ada = Client::synced(&mut bed, "ada");
    let mut forged = ada.cursors[0];
    forged.mac.0[0] ^= 1;
    let beyond = Cursor {
        version: Version(ada.cursors[0].version.0 + 1),
        ..ada.cursors[0]
    };
    for cursor in [ada.cursors[0], forged, beyond] {
        let mut ben = Client::new(&mut bed, "ben");
        ben.hello.cursors = vec![cursor];
        ben.greet(&mut bed);
        assert_eq!(
            ben.welcome().resume,
            Resume::Reload {
                reason: ReloadReason::Diverged,
                common: None
            }
        );
    }
}

#[test]
fn se4_changed_rules_load_again() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::synced(&mut bed, "ada");
    bed.world.now = bed.world.now.plus_millis(1);
    block_on(rebuild_rules(
        &mut bed.world.storage,
        &bed.context.plan,
        bed.world.now,
    ))
    .expect("buckets are computed anew");
    bed.restart();
    let newest = client.cursors[0];
    client.reconnect(&mut bed);
    assert_eq!(
        client.welcome().resume,
        Resume::Reload {
            reason: ReloadReason::Rules,
            common: Some(newest)
        }
    );
}

/// What has another name since is looked for under the new one, however long ago it was.
#[test]
fn se4_rules_that_changed_longer_ago_than_the_horizon_are_changed_rules() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::synced(&mut bed, "ada");
    bed.world.now = bed.world.now.plus_millis(1);
    let (storage, plan) = (&mut bed.world.storage, &bed.context.plan);
    block_on(rebuild_rules(storage, plan, bed.world.now)).expect("buckets are computed anew");
    bed.restart();
    project(&mut bed, "p2");
    let horizon = project(&mut bed, "p3");
    project(&mut bed, "p4");
    bed.trim(horizon);
    client.reconnect(&mut bed);
    assert_eq!(
        client.welcome().resume,
        Resume::Reload {
            reason: ReloadReason::Rules,
            common: None
        }
    );
    assert_eq!(client.page_rows().len(), 4);
}

/// A clock may be far ahead, so that the reading of a changeset does not say that it is older than
/// what the server remembers: the device's cursor says so, whatever it loads again for.
#[test]
fn pl3_an_id_that_is_forgotten_is_not_applied_again_under_other_rules() {
    for other_rules in [false, true] {
        let mut bed = Bed::new();
        let mut client = Client::synced(&mut bed, "ada");
        let known = client.cursors.clone();
        let mut changeset = client.draw(&bed, |draw| {
            draw.insert("projects", "p1", &[("name", "Garden".into())])
        });
        changeset.hlc = Hlc::at(bed.world.now.plus_millis(3_600_000));
        client.push(&mut bed, &changeset);
        let results = client.results();
        assert!(matches!(results[0].verdict, Verdict::Accepted(_)));
        bed.world.now = bed.world.now.plus_millis(1);
        if other_rules {
            let (storage, plan) = (&mut bed.world.storage, &bed.context.plan);
            block_on(rebuild_rules(storage, plan, bed.world.now)).expect("they are others");
            bed.restart();
        }
        let horizon = project(&mut bed, "p2");
        bed.trim(horizon);
        // Neither the answer nor a checkpoint after it has arrived.
        client.cursors = known;
        client.reconnect(&mut bed);
        client.push(&mut bed, &changeset);
        match &client.results()[0].verdict {
            Verdict::Refused(refusal) => assert_eq!(refusal.code, code::MAYBE_APPLIED),
            Verdict::Accepted(version) => panic!("applied again, at {version:?}"),
        }
    }
}

#[test]
fn se4_a_copy_goes_on_from_the_cursors_of_the_device_it_was() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut original = Client::synced(&mut bed, "ada");
    let before = original.hello.clone();
    let cursors = original.cursors.clone();
    original.reconnect(&mut bed);
    original.reconnect(&mut bed);

    let mut copy = Client::new(&mut bed, "ada");
    copy.hello = before;
    copy.hello.lease = Lease([1; 16]);
    copy.hello.next_lease = Lease([0x99; 16]);
    copy.hello.cursors = cursors;
    copy.greet(&mut bed);
    assert_ne!(copy.welcome().device, original.hello.device);
    assert_eq!(copy.welcome().next_number, 1);
    assert_eq!(copy.welcome().resume, Resume::Continue);
}

#[test]
fn se5_grants_that_the_replica_has_are_not_told() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::synced(&mut bed, "ada");
    client.reconnect(&mut bed);
    assert_eq!(client.words(), ["Welcome", "Checkpoint"]);
    assert!(client.checkpoints()[0].caught_up);
}

#[test]
fn se5_changed_grants_are_told_in_full_and_wait_for_load() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut ben = Client::synced(&mut bed, "ben");
    ben.prepare_reconnect(&mut bed);
    member(&mut bed, "m1", "p1", "ben");
    ben.greet(&mut bed);

    assert_eq!(ben.words(), ["Welcome", "Grants"], "nothing before Load");
    let grants = ben.grants()[0].clone();
    assert!(grants.full && grants.drop.is_empty());
    let gained = grants.reload.clone();
    assert!(!gained.is_empty() && gained.iter().all(|bucket| grants.add.contains(bucket)));

    ben.heard.clear();
    let positions = gained
        .iter()
        .flat_map(|bucket| {
            bed.context
                .plan
                .rules()
                .tables_of(*bucket)
                .iter()
                .map(|table| LoadPosition {
                    bucket: Some(*bucket),
                    table: *table,
                    after: None,
                })
        })
        .collect();
    ben.load(&mut bed, positions);
    let keys: Vec<_> = ben.page_rows().iter().map(|row| row.table).collect();
    assert!(keys.contains(&bed.table("projects")));
    assert_eq!(ben.checkpoints().last().expect("an end").loading, 0);
}

#[test]
fn se5_what_was_lost_and_won_back_is_loaded_again() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let member_at = member(&mut bed, "m1", "p1", "ben");
    let mut ben = Client::synced(&mut bed, "ben");
    let (count, sum) = ben.session.sight().expect("it streams").summary();
    ben.prepare_reconnect(&mut bed);
    bed.write("ada", |draw| draw.delete("members", "m1", member_at));
    member(&mut bed, "m2", "p1", "ben");
    ben.greet(&mut bed);
    let grants = ben.grants();
    assert_eq!(
        (ben.hello.buckets_count, ben.hello.buckets_sum),
        (count, sum)
    );
    assert!(grants[0].full, "the same buckets, but not the same rows");
    assert!(!grants[0].reload.is_empty());
}

#[test]
fn se5a_load_starts_a_part_again_at_any_time() {
    let mut bed = Bed::new();
    bed.write("ada", |draw| {
        draw.insert("notes", Value::Integer(1), &[("body", "one".into())])
            .insert("notes", Value::Integer(2), &[("body", "two".into())])
    });
    let mut client = Client::synced(&mut bed, "ada");
    let notes = bed.table("notes");
    client.load(
        &mut bed,
        vec![LoadPosition {
            bucket: None,
            table: notes,
            after: None,
        }],
    );
    assert_eq!(client.page_rows().len(), 2);
    assert!(client.live().iter().any(|live| live.table == notes));
}

#[test]
fn se5a_who_asks_for_what_has_no_bucket_hears_that_there_is_nothing() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ben");
    client.heard.clear();
    let tasks = bed.table("tasks");
    client.load(
        &mut bed,
        vec![LoadPosition {
            bucket: None,
            table: tasks,
            after: None,
        }],
    );
    assert_eq!(client.pages().len(), 0, "ben is in no project");
    let answers = client
        .heard
        .iter()
        .filter_map(|(message, _)| match message {
            ServerMessage::Checkpoint(checkpoint) => {
                Some((checkpoint.loading, checkpoint.caught_up))
            }
            _ => None,
        });
    assert_eq!(answers.collect::<Vec<_>>(), [(0, true)]);
}

#[test]
fn se5a_what_cannot_be_seen_is_not_loaded() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let ada = Client::synced(&mut bed, "ada");
    let hidden: Vec<BucketId> = ada.session.sight().expect("it streams").buckets().collect();
    let mut ben = Client::synced(&mut bed, "ben");
    let own: Vec<BucketId> = ben.session.sight().expect("it streams").buckets().collect();
    let projects = bed.table("projects");
    let positions = hidden.iter().filter(|bucket| !own.contains(bucket));
    let positions = positions.map(|bucket| LoadPosition {
        bucket: Some(*bucket),
        table: projects,
        after: None,
    });
    ben.load(&mut bed, positions.collect());
    assert!(ben.page_rows().is_empty());
    assert!(!ben.session.is_closed());
}

#[test]
fn se6_a_reload_starts_with_grants_and_the_starting_cursor() {
    let mut bed = Bed::new();
    let end = project(&mut bed, "p1");
    let client = Client::connected(&mut bed, "ada");
    assert_eq!(
        client.words()[..4],
        ["Welcome", "Grants", "Checkpoint", "Page"]
    );
    assert!(client.grants()[0].full);
    let start = client.checkpoints()[0];
    assert_eq!(start.cursor.version, end);
    assert!(start.digests.is_empty() && start.live.is_empty());
    assert!(start.loading > 0);
}

/// A page of the log's end counts for a device only once a checkpoint has passed it, and the
/// connection may end before the next one is due.
#[test]
fn se13_the_end_of_the_log_comes_with_a_checkpoint_before_the_first_page() {
    let mut bed = Bed::new();
    project(&mut bed, "p1");
    let mut client = Client::synced(&mut bed, "ada");
    let notes = bed.table("notes");
    client.prepare_reconnect(&mut bed);
    client.hello.loading = vec![LoadPosition {
        bucket: None,
        table: notes,
        after: None,
    }];
    bed.write("ben", |draw| {
        draw.insert("notes", 77, &[("body", "later".into())])
    });
    client.greet(&mut bed);
    let words = client.words();
    let first = |word| words.iter().position(|one| *one == word);
    assert!(first("Page").is_some(), "{words:?}");
    assert!(first("Checkpoint") < first("Page"), "{words:?}");
    let (page, passed) = (client.pages()[0].version, client.checkpoints()[0]);
    assert!(!passed.caught_up && passed.cursor.version >= page);
}

#[test]
fn se6_a_resumed_load_goes_on_where_it_stopped() {
    let mut bed = Bed::new();
    bed.write("ada", |draw| {
        (1..=3).fold(draw, |draw, i| {
            draw.insert("notes", Value::Integer(i), &[("body", "x".into())])
        })
    });
    let mut client = Client::synced(&mut bed, "ada");
    let notes = bed.table("notes");
    let rows = {
        let mut loading = Client::connected(&mut bed, "ada/2");
        loading
            .heard
            .retain(|(message, _)| matches!(message, ServerMessage::Page(_)));
        loading.page_rows()
    };
    let own_bucket = bed.last_entry().records[0].after[0];
    client.prepare_reconnect(&mut bed);
    client.hello.loading = vec![LoadPosition {
        bucket: Some(own_bucket),
        table: notes,
        after: Some(rows[1].key.as_bytes().to_vec()),
    }];
    client.say(&mut bed, &ClientMessage::Hello(client.hello.clone()));
    assert_eq!(client.welcome().resume, Resume::Continue);
    let keys: Vec<_> = client.page_rows().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, [rows[2].key.clone()]);
}
