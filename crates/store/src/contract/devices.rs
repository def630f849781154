//! The devices of a user: listing, renaming, deregistering.

use std::collections::BTreeMap;

use syncline_core::{DeviceId, DeviceName, Lease, Timestamp, UserId, Version, wire::code};

use super::Bed;
use crate::{
    DeviceHello, DeviceOpened, DeviceSeen, DeviceState, OpenDeviceError, Reader, Storage,
    deregister_device,
    device::is_to_be_wiped,
    note_devices, open_device, rename_device,
    testkit::{World, block_on},
};

const FRESH: DeviceId = DeviceId([0xEE; 16]);

fn user(name: &str) -> UserId {
    UserId(name.to_owned())
}

fn id(byte: u8) -> DeviceId {
    DeviceId([byte; 16])
}

fn hello(device: u8, name: &str) -> DeviceHello {
    DeviceHello {
        device: id(device),
        lease: Lease::default(),
        next_lease: Lease([1; 16]),
        user: user("ada"),
        name: name.to_owned(),
        renamed: false,
        platform: "test\u{1b}".to_owned(),
        register_anew: false,
    }
}

fn open<S: Storage>(storage: &mut S, hello: &DeviceHello, at: u64) -> DeviceOpened {
    block_on(open_device(storage, hello, FRESH, Timestamp(at))).expect("the device is opened")
}

fn listed<B: Bed>(bed: &mut B, storage: &B::Storage, of: &str, max: usize) -> Vec<DeviceState> {
    block_on(bed.reader(storage).devices(&user(of), max)).expect("devices are read")
}

fn names<B: Bed>(bed: &mut B, storage: &B::Storage, of: &str) -> Vec<String> {
    let devices = listed(bed, storage, of, usize::MAX);
    devices.into_iter().map(|device| device.name).collect()
}

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).expect("a name")
}

pub fn de3_devices_are_listed_for_their_user_the_last_seen_first<B: Bed>(bed: &mut B) {
    let mut storage = bed.open();
    for (device, name, at) in [(1, "phone", 10), (2, "laptop", 30), (3, "tablet", 20)] {
        open(&mut storage, &hello(device, name), at);
    }
    let of_eve = DeviceHello {
        user: user("eve"),
        ..hello(4, "burner")
    };
    open(&mut storage, &of_eve, 40);
    assert_eq!(names(bed, &storage, "ada"), ["laptop", "tablet", "phone"]);
    assert_eq!(names(bed, &storage, "eve"), ["burner"]);
    assert_eq!(names(bed, &storage, "nobody"), [""; 0]);
    let first = listed(bed, &storage, "ada", 1);
    assert_eq!(first.len(), 1);
    assert_eq!(
        (first[0].id, first[0].platform.as_str(), first[0].first_seen),
        (id(2), "test\\u{1b}", Timestamp(30))
    );
}

pub fn de3_how_devices_were_seen_is_noted_at_once<B: Bed>(bed: &mut B) {
    let mut storage = bed.open();
    open(&mut storage, &hello(1, "phone"), 10);
    open(&mut storage, &hello(2, "laptop"), 20);
    let seen = |at, checkpoint| DeviceSeen {
        at: Timestamp(at),
        checkpoint: Some(checkpoint).filter(|at| *at > 0).map(Version),
    };
    // One of another server's data, one by a clock that went back, one with a log that was
    // restored.
    let note = BTreeMap::from([
        (id(1), seen(50, 7)),
        (id(2), seen(15, 9)),
        (id(9), seen(1, 1)),
    ]);
    block_on(note_devices(&mut storage, &note)).expect("it is noted");
    drop(storage);
    let mut storage = bed.open();
    let note = BTreeMap::from([(id(1), seen(40, 0)), (id(2), seen(15, 4))]);
    block_on(note_devices(&mut storage, &note)).expect("it is noted");
    let devices = listed(bed, &storage, "ada", 9);
    let seen: Vec<_> = devices
        .iter()
        .map(|device| (device.id, device.last_seen.0, device.checkpoint.0))
        .collect();
    assert_eq!(seen, [(id(1), 50, 7), (id(2), 20, 4)]);
}

pub fn de2_a_name_stays_until_somebody_gives_another<B: Bed>(bed: &mut B) {
    let mut storage = bed.open();
    open(&mut storage, &hello(1, "phone"), 10);
    let rename = |storage: &mut B::Storage, of: &str, device, text| {
        block_on(rename_device(storage, &user(of), device, &name(text))).expect("it is asked")
    };
    let renamed = rename(&mut storage, "ada", id(1), "Ada's phone");
    assert_eq!(renamed.map(|state| state.name), Some("Ada's phone".into()));
    assert_eq!(rename(&mut storage, "eve", id(1), "mine"), None);
    assert_eq!(rename(&mut storage, "ada", id(2), "nobody's"), None);
    let again = |lease, next, name, renamed| DeviceHello {
        lease: Lease([lease; 16]),
        next_lease: Lease([next; 16]),
        renamed,
        ..hello(1, name)
    };
    let opened = open(&mut storage, &again(1, 2, "phone", false), 20);
    assert_eq!(opened.state.name, "Ada's phone", "the device did not know");
    let opened = open(&mut storage, &again(2, 3, "brick", true), 30);
    assert_eq!(opened.state.name, "brick", "it was given another one there");
    assert_eq!(names(bed, &storage, "ada"), ["brick"]);
}

pub fn de4_a_deregistered_device_opens_nothing_and_commits_nothing<B: Bed>(bed: &mut B) {
    let mut world = World::new(bed.open());
    world
        .push("ada", |draw| {
            draw.insert("labels", "a", &[("name", "red".into())])
        })
        .accepted();
    let late = {
        let changes = world
            .draw()
            .insert("labels", "b", &[("name", "blue".into())])
            .done();
        world.submission("ada", changes)
    };
    let device = late.device;
    let deregister = |storage: &mut B::Storage, of: &str, device| {
        block_on(deregister_device(
            storage,
            &user(of),
            device,
            false,
            Timestamp(99),
        ))
        .expect("it is asked")
        .map(|state| state.deregistered)
    };
    assert_eq!(deregister(&mut world.storage, "eve", device), None);
    assert_eq!(deregister(&mut world.storage, "ada", id(77)), None);
    let since = Some(Some(Timestamp(99)));
    assert_eq!(deregister(&mut world.storage, "ada", device), since);
    world = world.restart(|storage| {
        drop(storage);
        bed.open()
    });
    assert_eq!(
        deregister(&mut world.storage, "ada", device),
        since,
        "again"
    );
    assert_eq!(names(bed, &world.storage, "ada"), [""; 0]);
    let outcome = world.commit(std::slice::from_ref(&late));
    let syncline_core::wire::Verdict::Refused(refusal) = &outcome.results[0].verdict else {
        panic!("{outcome:?}")
    };
    assert_eq!((refusal.code.as_str(), refusal.retry), (code::GAP, true));
    for lease in [Lease::default(), Lease([1; 16]), Lease([7; 16])] {
        let hello = DeviceHello {
            device,
            lease,
            ..hello(0, "back again")
        };
        let refused = block_on(open_device(&mut world.storage, &hello, FRESH, world.now));
        let Err(OpenDeviceError::Refused(refusal)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(refusal.code, code::DEREGISTERED);
        assert!(refusal.fatal && !refusal.retry);
    }
    let (ada, other) = (user("ada"), name("x"));
    let renamed = block_on(rename_device(&mut world.storage, &ada, device, &other));
    assert_eq!(renamed.expect("it is asked"), None);
}

pub fn de5_a_device_that_is_registered_anew_is_another_one<B: Bed>(bed: &mut B) {
    let mut storage = bed.open();
    open(&mut storage, &hello(1, "phone"), 10);
    let anew = DeviceHello {
        lease: Lease([1; 16]),
        next_lease: Lease([2; 16]),
        register_anew: true,
        ..hello(1, "phone")
    };
    let same = open(&mut storage, &anew, 15);
    assert_eq!(same.forked_from, None, "it was not deregistered");
    block_on(deregister_device(
        &mut storage,
        &user("ada"),
        id(1),
        false,
        Timestamp(20),
    ))
    .expect("it is deregistered");
    let of_eve = DeviceHello {
        user: user("eve"),
        ..anew.clone()
    };
    let refused = block_on(open_device(&mut storage, &of_eve, FRESH, Timestamp(25)));
    let Err(OpenDeviceError::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.code, code::WRONG_USER);
    let opened = open(&mut storage, &anew, 30);
    assert_eq!(
        (
            opened.state.id,
            opened.forked_from,
            opened.state.last_number
        ),
        (FRESH, Some(id(1)), 0)
    );
    let devices = listed(bed, &storage, "ada", 9);
    assert_eq!(devices, [opened.state]);
}

pub fn de8_a_device_that_is_to_be_wiped_is_told_by_its_lease_and_not_registered_anew<B: Bed>(
    bed: &mut B,
) {
    let mut storage = bed.open();
    open(&mut storage, &hello(1, "phone"), 10);
    let deregister = |storage: &mut B::Storage, wipe| {
        block_on(deregister_device(
            storage,
            &user("ada"),
            id(1),
            wipe,
            Timestamp(20),
        ))
        .expect("it is asked")
        .expect("it is ada's")
    };
    let leases = |lease| [Lease([lease; 16]), Lease::default()];
    let state = deregister(&mut storage, false);
    assert!(!state.wipe && !is_to_be_wiped(&state, leases(1)));
    let state = deregister(&mut storage, true);
    assert!(state.wipe, "asked for later");
    assert!(deregister(&mut storage, false).wipe, "it is not taken back");
    let read = block_on(bed.reader(&storage).device(id(1))).expect("it is read");
    assert_eq!(read.as_ref(), Some(&state));
    let none = block_on(bed.reader(&storage).device(id(2))).expect("it is read");
    assert_eq!(none, None);
    assert!(is_to_be_wiped(&state, leases(1)));
    assert!(is_to_be_wiped(&state, [Lease([9; 16]), Lease([1; 16])]));
    assert!(!is_to_be_wiped(&state, leases(2)));
    assert!(!is_to_be_wiped(&state, [Lease::default(); 2]));
    let anew = DeviceHello {
        lease: Lease([1; 16]),
        next_lease: Lease([2; 16]),
        register_anew: true,
        ..hello(1, "phone")
    };
    let refused = block_on(open_device(&mut storage, &anew, FRESH, Timestamp(30)));
    let Err(OpenDeviceError::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.code, code::DEREGISTERED);
}
