//! `journals edit`, with editors which are scripts.

use super::{Broker, TREE, text};
use std::process::Output;

fn edit(broker: &Broker, selector: &str, editor: &str) -> Output {
    let mut command = broker.command(&format!("journals edit -l {selector}"));
    command.env("GAZ_EDITOR", editor).env("TMPDIR", broker.path("store")).output().unwrap()
}

/// Files which editing has left behind.
fn left(broker: &Broker) -> Vec<String> {
    let entries = std::fs::read_dir(broker.path("store")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("courant-edit-")).collect()
}

#[test]
fn what_is_saved_is_applied() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    let seen = broker.path("seen");
    let editor = format!("sed -i -e 'w {}' -e 's/value: test/value: changed/'", seen.display());
    let output = edit(&broker, "app=test", &editor);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("successfully applied 2 journals"), "{said}");
    assert_eq!(broker.ok("journals list -L app", b""), "NAME   app\na/one  changed\na/two  changed\n");
    let seen = std::fs::read_to_string(seen).unwrap();
    let (header, yaml) = seen.split_at(seen.find("name: a/").unwrap());
    assert!(header.lines().count() == 4 && header.lines().all(|line| line.starts_with("#⚙ ")), "{header}");
    assert!(yaml.contains("children:") && yaml.contains("revision: "), "{yaml}");

    let mut command = broker.command("journals edit -l name=a/one");
    let output = command.env("GAZ_EDITOR", "").env("EDITOR", "sed -i s/changed/again/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(broker.ok("journals list -L app", b""), "NAME   app\na/one  again\na/two  changed\n");
    assert_eq!(left(&broker), [""; 0]);
}

#[test]
fn what_is_left_as_it_is_changes_nothing() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    let listed = broker.ok("journals list -o yaml", b"");
    for (editor, said) in [
        ("true", "cancelled: nothing was changed\n"),
        ("touch", "cancelled: nothing was changed\n"),
        ("truncate -s 0", "cancelled: the file is empty\n"),
        ("sed -i '/^[^#]/d'", "cancelled: the file is empty\n"),
    ] {
        let output = edit(&broker, "app=test", editor);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), said), "{editor}");
    }
    for (selector, editor, said) in [
        ("app=test", "false", "error: the editor \"false\" failed: exit status: 1\n"),
        ("app=other", "true", "error: no journal matches app=other\n"),
    ] {
        let output = edit(&broker, selector, editor);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), said), "{editor}");
    }
    assert_eq!(broker.ok("journals list -o yaml", b""), listed);
    assert_eq!(left(&broker), [""; 0]);
}

#[test]
fn mistakes_open_the_editor_again_and_say_what_they_are() {
    let broker = Broker::start();
    broker.ok("journals apply", TREE);
    // First misspells a key, then breaks a rule, and then does what it was to do.
    let script = format!(
        "#!/bin/sh
         if grep -q '^#⚠.*unknown field' \"$1\"; then sed -i 's/replicatoin: 1/replication: 0/' \"$1\"
         elif grep -q '^#⚠' \"$1\"; then cp \"$1\" {}; sed -i -e 's/replication: 0/replication: 1/' -e 's/test/done/' \"$1\"
         else sed -i 's/replication/replicatoin/' \"$1\"; fi\n",
        broker.path("third").display()
    );
    std::fs::write(broker.path("editor"), script).unwrap();
    let editor = format!("sh {}", broker.path("editor").display());
    let output = edit(&broker, "name=a/one", &editor);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(broker.ok("journals list -L app", b""), "NAME   app\na/one  done\na/two  test\n");
    let third = std::fs::read_to_string(broker.path("third")).unwrap();
    let problems: Vec<_> = third.lines().filter(|line| line.starts_with("#⚠ ")).collect();
    assert!(problems.len() == 1 && problems[0].contains("invalid Replication (0; expected"), "{third}");

    // Edits which were never accepted are kept.
    let output = edit(&broker, "name=a/one", "sed -i 's/replication: 1/replication: 0/; /⚠/d'");
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("the last edits are in "), "{said}");
    let kept = left(&broker);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(said.contains(&kept[0]), "{said}");
    let kept = std::fs::read_to_string(broker.path("store").join(&kept[0])).unwrap();
    assert!(kept.contains("replication: 0"), "{kept}");
    assert!(broker.ok("journals list --rf -l name=a/one", b"").contains("  1\n"));
}
