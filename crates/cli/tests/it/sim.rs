//! A configuration on simulated devices.

use crate::support::{Scratch, exit};

const CONFIG: &str = r#"
[tables.projects]
columns = { id = "uuid primary key", name = "text not null" }
read = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid()"

[tables.members]
columns = { id = "uuid primary key", project_id = "uuid not null references projects on delete cascade", user_id = "text not null" }
read = "user_id = auth.uid() OR project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.tasks]
columns = { id = "uuid primary key", project_id = "uuid not null references projects on delete cascade", title = "text not null default ''", done = "boolean not null default 0", tags = "json", votes = "integer not null default 0" }
read = "project_id IN readable(projects)"
write = "project_id IN readable(projects)"
merge = { tags = "set", votes = "counter" }

# Named as tables of the simulator's own, of which it knows more.
[tables.news]
columns = { id = "uuid primary key", body = "text not null" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"

[tables.letters]
columns = { id = "uuid primary key" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

#[test]
fn a_configuration_keeps_every_promise_on_simulated_devices() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("my.toml"), CONFIG).expect("a configuration");
    let file = scratch.path("my.toml");
    let file = file.to_str().expect("a plain path");
    let run = |seeds: &str, scenario: &str| {
        let args = ["sim", "--config", file, "--seeds", seeds, "--steps", "30"];
        scratch
            .run(&[&args[..], &["--scenario", scenario]].concat())
            .expect(exit::DONE)
    };
    let done = run("3..5", "everything");
    let again = run("3..5", "everything");
    assert_eq!(
        done.all("simulated"),
        again.all("simulated"),
        "always the same"
    );
    let simulation = done.one("simulation");
    assert_eq!(simulation["runs"], 2);
    let compared = simulation["compared"].as_u64();
    assert!(compared.is_some_and(|count| count > 0), "{simulation}");
    for scenario in ["calm", "permissions"] {
        run("1..2", scenario);
    }

    let told = scratch
        .say(&["sim", "--config", file, "--seeds", "3..4", "--steps", "30"])
        .expect(exit::DONE);
    for words in ["1 run kept every promise", "tasks", "Compared"] {
        assert!(told.stdout.contains(words), "{}", told.stdout);
    }
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let scratch = Scratch::new();
    let file = scratch.path("my.toml");
    std::fs::write(&file, "[tables.notes]\nread = \"_owner = auth.uid()\"\n").expect("a file");
    let file = file.to_str().expect("a plain path");
    scratch
        .run(&["sim", "--config", file])
        .expect(exit::CONFIG)
        .says(&["which columns notes has"]);
    scratch
        .run(&["sim", "--config", file, "--scenario", "storm"])
        .expect(exit::USAGE)
        .says(&["calm", "everything"]);
}
