//! No runtime at all, and another one than ours.

use syncline::{Config, Tables, blocking::SyncManager};

use crate::support::{Bed, NOTES, rows, sql};

#[test]
fn lb11_an_app_without_a_runtime_syncs_and_hears_of_it() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    let sync = SyncManager::open(&path, bed.config("ana")).unwrap();
    let events = sync.events();
    let mut last = 0;
    let done = sync.sync(Tables::All, |p| last = p.percentage).unwrap();
    assert_eq!((done.sent.created, last), (1, 100));
    assert_eq!(sync.status().unwrap().unwrap().waiting, 0);
    assert!(sync.conflicts(true).unwrap().is_empty());
    sync.close();
    let names: Vec<&str> = events.map(|event| event.name()).collect();
    assert_eq!(names.first(), Some(&"sync_started"), "{names:?}");
    assert_eq!(names.last(), Some(&"sync_completed"), "{names:?}");
    assert!(sync.status().is_err());
    assert_eq!(bed.at_server("SELECT title FROM notes"), "Milk");
}

#[test]
fn lb11_a_handle_goes_to_other_threads() {
    fn is_sendable<T: Send + Sync + Clone>(_: &T) {}
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).unwrap();
    is_sendable(sync.handle());
    sync.handle().update_config(|_| bed.config("ana")).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (sync, path) = (sync.clone(), path.clone());
            std::thread::spawn(move || {
                sql(
                    &path,
                    &format!("INSERT INTO notes VALUES ('n{n}', 'x', NULL)"),
                );
                sync.sync(Tables::All, |_| {}).unwrap().sent.created
            })
        })
        .collect();
    let sent: u64 = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert_eq!(sent, 4);
    assert_eq!(
        rows(&bed.path("server.db"), "SELECT count(*) FROM notes"),
        "4"
    );
}
