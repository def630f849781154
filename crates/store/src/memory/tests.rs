use crate::{memory::MemoryStorage, testkit::World};

#[test]
fn pl1_smoke() {
    let mut world = World::new(MemoryStorage::new());
    let pushed = world.push("ada", |draw| {
        draw.insert("projects", "p1", &[("name", "Garden".into())])
    });
    dbg!(&pushed.outcome);
    assert!(pushed.version().0 > 0);
}
