//! Where the server's settings come from, and what is made of the tables.

use crate::support::{Outcome, Scratch, exit, open};

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:7200"
retention_days = 7

[tables.notes]
columns = { id = "uuid primary key", title = "text not null", done = "boolean default 0", at = "timestamp" }
indexes = [["at"]]
"#;

fn config(scratch: &Scratch, args: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let mut command = scratch.command(&[&["config"], args].concat());
    command.envs(environment.iter().copied()).arg("--json");
    Outcome::of(&mut command)
}

#[test]
fn each_setting_says_where_it_came_from() {
    let scratch = Scratch::new();
    let from = |outcome: &Outcome, name: &str| {
        let settings = outcome.all("setting");
        let setting = settings.iter().find(|setting| setting["name"] == name);
        let setting = setting.unwrap_or_else(|| panic!("{name} is among {settings:?}"));
        format!(
            "{} from {}",
            setting["value"],
            setting["from"].as_str().expect("text")
        )
    };
    let defaults = config(&scratch, &[], &[]).expect(exit::DONE);
    assert_eq!(
        from(&defaults, "listen"),
        r#""127.0.0.1:7117" from default"#
    );

    scratch.write("syncline.toml", CONFIG);
    let environment = [
        ("SYNCLINE_RETENTION_DAYS", "9"),
        ("SYNCLINE_SCHEMA", "external"),
    ];
    let args = [
        "--retention-days",
        "11",
        "--origins",
        "https://a.example,https://b.example",
    ];
    let mixed = config(&scratch, &args, &environment).expect(exit::DONE);
    assert_eq!(
        from(&mixed, "listen"),
        r#""127.0.0.1:7200" from syncline.toml"#
    );
    assert_eq!(from(&mixed, "retention_days"), "11 from --retention-days");
    assert_eq!(from(&mixed, "schema"), r#""external" from SYNCLINE_SCHEMA"#);
    let origins = r#"["https://a.example","https://b.example"] from --origins"#;
    assert_eq!(from(&mixed, "origins"), origins);

    for (name, value) in [
        ("SYNCLINE_RETENTION_DAYS", "soon"),
        ("SYNCLINE_LISTEN", "nowhere"),
        ("SYNCLINE_DATABASE", "mysql://db"),
    ] {
        let wrong = config(&scratch, &[], &[(name, value)]).expect(exit::CONFIG);
        wrong.says(&[name, value]);
    }
}

#[test]
fn cf16_limits_are_shown_with_where_they_came_from() {
    let scratch = Scratch::new();
    let text = format!("{CONFIG}\n[limits]\nuser_connections = 5\nrow_bytes = 1_000_000\n");
    scratch.write("syncline.toml", &text);
    let shown = config(&scratch, &[], &[]).expect(exit::DONE);
    let setting = |name: &str| {
        let all = shown.all("setting");
        let found = all.iter().find(|setting| setting["name"] == name);
        let found = found.unwrap_or_else(|| panic!("{name} is among {all:?}"));
        format!("{} {}", found["value"], found["from"])
    };
    assert_eq!(setting("limits.user_connections"), r#"5 "syncline.toml""#);
    assert_eq!(setting("limits.changeset_rows"), r#"100000 "default""#);

    let checked = scratch.say(&["check"]).expect(exit::DONE);
    let told = &checked.stdout;
    assert!(
        told.contains("limit: user_connections is 5 (by default 64)"),
        "{told}"
    );
    assert!(told.contains("limit: row_bytes is 1000000"), "{told}");
    assert!(
        !checked.stdout.contains("changeset_rows"),
        "what is usual is not told"
    );

    scratch.write("syncline.toml", &text.replace("= 5", "= 0"));
    let wrong = scratch.say(&["check"]).expect(exit::CONFIG);
    wrong.says(&["limits.user_connections is 0", "from 1"]);
}

#[test]
fn the_generated_schema_makes_the_tables() {
    let scratch = Scratch::new();
    scratch.write("syncline.toml", CONFIG);
    let schema = scratch.say(&["generate", "schema"]).expect(exit::DONE);
    let made = open(&scratch.path("made.db"));
    made.execute_batch(&schema.stdout)
        .expect("SQL that SQLite takes");
    made.execute_batch("INSERT INTO notes(id, title) VALUES ('a', 'b')")
        .expect("a row");
    drop(made);

    // And back: what the file says of itself is the same again.
    let again = scratch
        .say(&["generate", "schema", "--from", "made.db"])
        .expect(exit::DONE);
    assert_eq!(
        again.stdout.replace("\n\n", "\n"),
        schema.stdout.replace("\n\n", "\n")
    );
    let types = scratch
        .say(&["generate", "types", "--from", "made.db"])
        .expect(exit::DONE);
    for line in [
        "export interface Notes {",
        "title: string;",
        "done: 0 | 1 | null;",
    ] {
        assert!(types.stdout.contains(line), "no {line:?} in {types:?}");
    }
    scratch
        .say(&["generate", "types", "--from", "absent.db"])
        .expect(exit::NOT_FOUND);
}
