use proptest::prelude::*;
use proto::protocol::{CompressionCodec, Label};

use super::*;

fn label(name: &str, value: &str) -> Label {
    Label { name: name.to_owned(), value: value.to_owned(), prefix: false }
}

/// Evaluates over a fragment first appended to on Tue May 3 2022 04:05:06 UTC.
fn eval(template: &str) -> Result<String, TemplateError> {
    let fragment = protocol::Fragment {
        journal: "a/journal".to_owned(),
        begin: 4096,
        end: 8192,
        compression_codec: CompressionCodec::Snappy.into(),
        ..Default::default()
    };
    let registers =
        LabelSet { labels: vec![label("up", "../../etc"), label("who", "ann"), label("who", "bob")] };
    let spec = JournalSpec {
        name: "a/journal".to_owned(),
        replication: 3,
        labels: Some(LabelSet { labels: vec![label("app.gazette.dev/region", "eu-1")] }),
        ..Default::default()
    };
    let first_append_time = Some(Duration::from_secs(1_651_550_706));
    let context = Context { fragment: &fragment, first_append_time, registers: &registers, spec: &spec };
    Ok(Template::parse(template)?.eval(&context)?.as_str().to_owned())
}

#[test]
fn templates_evaluate_as_in_go() {
    let cases = [
        ("", ""),
        ("plain/text", "plain/text"),
        (
            r#"date={{ .Spool.FirstAppendTime.Format "2006-01-02" }}/hour={{ .Spool.FirstAppendTime.Format "15" }}"#,
            "date=2022-05-03/hour=04",
        ),
        (r#"{{.FirstAppendTime.UTC.Format "2006"}}"#, "2022"),
        (r#"{{ (.Spool.FirstAppendTime.UTC).Format "01" }}"#, "05"),
        (r#"{{ "02" | .Spool.FirstAppendTime.Format }}"#, "03"),
        ("{{ $.Spool.FirstAppendTime.Format `15` }}", "04"),
        ("{{ .Spool.FirstAppendTime.Unix }}", "1651550706"),
        ("{{.Spool.FirstAppendTime.Year}}-{{.Spool.FirstAppendTime.Month}}", "2022-May"),
        (r#"{{ printf "%04d-%02d" .FirstAppendTime.Year .FirstAppendTime.Month }}"#, "2022-05"),
        (r#"{{ .FirstAppendTime.Day | printf "day=%03d" }}"#, "day=003"),
        (r#"{{ printf "%s-%v-%x" .JournalSpec.Name .Spool.Begin 255 | print "p/" }}"#, "p/a/journal-4096-ff"),
        (r#"{{ print 1 2 "a" 3 true }}"#, "1%202a3%20true"),
        (r#"{{ .Spool.Registers.ValueOf "who" }}"#, "ann"),
        (r#"{{ .Registers.ValueOf "nobody" }}x"#, "x"),
        (r#"{{ .JournalSpec.LabelSet.ValueOf "app.gazette.dev/region" }}"#, "eu-1"),
        ("{{ .Spool.Begin }}/{{ .Spool.Fragment.End }}/{{ .ContentLength }}", "4096/8192/4096"),
        ("{{ .Spool.CompressionCodec }}-{{ .Replication }}-{{ .Name }}", "SNAPPY-3-a/journal"),
        ("a  {{- /* comment */ -}}  b", "ab"),
        ("a {{- 1 -}} b{{ -2 }}", "a1b-2"),
        ("{{ \"tab\\tquote\\\"\" }}", "tab%09quote%22"),
        ("{{ true }}", "true"),
        ("{{\n.Spool.Begin\n}}", "4096"),
    ];
    for (template, expected) in cases {
        assert_eq!(eval(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn results_never_leave_the_journals_directory() {
    let cases = [
        ("../../other", "%2E%2E/%2E%2E/other"),
        (r#"{{ .Spool.Registers.ValueOf "up" }}"#, "%2E%2E/%2E%2E/etc"),
        ("/rooted//and/./clean/", "rooted/and/clean"),
        ("a b:c#d", "a%20b%3Ac%23d"),
        ("..a/b../...", "..a/b../..."),
        ("é世", "é世"),
    ];
    for (template, expected) in cases {
        assert_eq!(eval(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn refusals_name_the_problem() {
    let cases = [
        ("{{", "unclosed action at byte 2"),
        ("{{}}", "unexpected '}' at byte 2"),
        ("{{ .Spool.Begin", "unclosed action at byte 15"),
        ("{{ /* }}", "unclosed comment at byte 5"),
        ("{{ \"a }}", "unterminated quoted string at byte 3"),
        ("{{ (1 }}", "unclosed '(' at byte 6"),
        ("{{ frobnicate }}", "function \"frobnicate\" is not defined at byte 3"),
        ("{{ \"a\".B }}", "unexpected '.' after a literal or function at byte 6"),
        ("{{ 1 2 }}", "what is not a function or method is given arguments at byte 3"),
        ("{{ 1 | 2 }}", "what is not a function or method is given arguments at byte 7"),
        ("{{ .Nope }}", "the template's root has no field or method Nope"),
        ("{{ .Fragment.Begin }}", "the template's root has no field or method Fragment"),
        ("{{ .Spool.Begin.Nope }}", "number has no field or method Nope"),
        ("{{ .FirstAppendTime.Format }}", "Format expects one string (found )"),
        ("{{ .FirstAppendTime.Format 1 }}", "Format expects one string (found number)"),
        ("{{ .FirstAppendTime.Unix 1 }}", "Unix expects no arguments (found 1)"),
        ("{{ printf 1 }}", "printf expects a format string first (found number)"),
        ("{{ printf \"%d\" }}", "printf expects an operand for each verb (found too few)"),
    ];
    for (template, expected) in cases {
        let error = eval(template).unwrap_err();
        assert_eq!(error.to_string(), format!("path postfix template: {expected}"), "{template}");
        assert!(!error.is_unsupported(), "{template}");
    }
}

#[test]
fn what_go_may_accept_is_told_apart() {
    for template in [
        "{{ if .Spool.Begin }}a{{ end }}",
        "{{ range .JournalSpec.Fragment.Stores }}x{{ end }}",
        "{{ $x := 1 }}",
        "{{ len .JournalSpec.Name }}",
        "{{ .Spool.Sum }}",
        "{{ .Spool }}",
        "{{ 'a' }}",
        "{{ 0x10 }}",
        "{{ \"\\u00e9\" }}",
        "{{ printf \"%q\" .Name }}",
        "{{ .FirstAppendTime.ISOWeek }}",
        &format!("{}1{}", "{{ ".to_owned() + &"(".repeat(1000), ")".repeat(1000) + " }}"),
        &"x".repeat(TEMPLATE_BYTES_MAX + 1),
    ] {
        assert!(eval(template).unwrap_err().is_unsupported(), "{template}");
    }
}

#[test]
fn long_results_are_refused() {
    assert_eq!(eval(&"x".repeat(512)).unwrap().len(), 512);
    assert_eq!(eval(&"x".repeat(513)), Err(TemplateError::TooLong { found: 513 }));
    assert_eq!(eval(&"x/.//".repeat(100)).unwrap().len(), 199);
    assert_eq!(
        eval("{{ printf \"%099999999999d\" 1 }}"),
        Err(TemplateError::TooLong { found: 99_999_999_999 })
    );
    assert!(eval(&"{{ .JournalSpec.Name }}".repeat(600)).is_err());
}

#[test]
fn templates_are_checked_over_zero_values() {
    let check = |template| Template::parse(template).and_then(|template| template.check());
    assert_eq!(check(r#"{{ .Spool.FirstAppendTime.Format "2006" }}/{{ .Spool.ContentName }}"#), Ok(()));
    assert!(check("{{ .Spool.Missing }}").is_err());
}

proptest! {
    #[test]
    fn no_template_panics_and_every_value_is_a_postfix(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("{{"), Just("}}"), Just("{{- "), Just(" -}}"), Just("."), Just(".Spool"), Just(" "), Just("("),
                Just(")"), Just("|"), Just("\""), Just("`"), Just("printf"), Just("%-09d"), Just(".Format"), Just("$"),
                Just("2006"), Just("/../"), Just("/*"), Just("*/"), Just(".FirstAppendTime"), Just("é"), Just("\\"),
                Just("1"), Just("-"), Just("'"), Just(".000"), Just("_2"), Just("{{ .Begin }}"), Just(":="),
            ],
            0..24,
        ),
        noise in any::<String>(),
    ) {
        for template in [pieces.concat(), noise.clone(), format!("{{{{ {noise} }}}}")] {
            if let Ok(value) = eval(&template) {
                prop_assert!(!value.split('/').any(|element| element == ".."));
                let postfix = PathPostfix::parse(&value).unwrap();
                prop_assert_eq!(postfix.as_str(), value);
            }
        }
    }
}
