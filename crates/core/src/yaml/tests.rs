use proptest::prelude::*;

use super::*;
use crate::error::Result;

fn one(text: &str) -> Result<(Stream, Node)> {
    let stream = Stream::parse(text)?;
    let root = stream.documents()[0].root.clone();
    Ok((stream, root))
}

#[test]
fn plain_scalars_mean_what_they_mean_to_go_yaml() {
    let float = Value::Float;
    let str = |text: &str| Value::Str(text.to_owned());
    let time = |text: &str| Value::Time(text.to_owned());
    let table = [
        ("", Value::Null),
        ("~", Value::Null),
        ("Null", Value::Null),
        ("nULL", str("nULL")),
        ("TRUE", Value::Bool(true)),
        ("yes", str("yes")),
        ("on", str("on")),
        ("y", str("y")),
        ("0", Value::Int(0)),
        ("-12", Value::Int(-12)),
        ("+12", Value::Int(12)),
        ("1_000", Value::Int(1000)),
        ("0777", Value::Int(511)),
        ("0o777", Value::Int(511)),
        ("-0o17", Value::Int(-15)),
        ("0x_1F", Value::Int(31)),
        ("0b101", Value::Int(5)),
        ("08", float(8.0)),
        ("1.0", float(1.0)),
        ("1.", float(1.0)),
        ("1e3", float(1000.0)),
        (".5", float(0.5)),
        (".5_0", str(".5_0")),
        ("1e999", str("1e999")),
        (".", str(".")),
        ("-.inf", float(f64::NEG_INFINITY)),
        (".NaN", float(f64::NAN)),
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
        ("9223372036854775808", Value::Uint(1 << 63)),
        ("-9223372036854775809", float(-9_223_372_036_854_775_809.0)),
        ("18446744073709551616", float(18_446_744_073_709_551_616.0)),
        ("2024-01-02", time("2024-01-02T00:00:00Z")),
        ("2024-1-2", time("2024-01-02T00:00:00Z")),
        ("2024-02-30", str("2024-02-30")),
        ("2024-01-02T03:04:05.1200Z", time("2024-01-02T03:04:05.12Z")),
        ("2024-01-02t3:4:5+02:00", time("2024-01-02T03:04:05+02:00")),
        ("2024-01-02 03:04:05", time("2024-01-02T03:04:05Z")),
        ("2024-01-02 03:04:05Z", str("2024-01-02 03:04:05Z")),
        ("12:30", str("12:30")),
        ("0x", str("0x")),
        ("v1.10", str("v1.10")),
        ("10.5.0.2", str("10.5.0.2")),
    ];
    for (text, value) in table {
        assert_eq!(resolve(text, true, None), value, "{text:?}");
        assert_eq!(resolve(text, false, None), str(text), "{text:?} quoted");
    }
    assert_eq!(resolve("5", true, Some("tag:yaml.org,2002:str")), str("5"));
    assert_eq!(resolve("5", true, Some("tag:yaml.org,2002:float")), float(5.0));
}

#[test]
fn spans_cover_exactly_the_bytes_of_a_node() -> Result<()> {
    let text = "# head\na: 'it''s' # x\nb:\nc: |- # why\n  one\n\n  two\n\n\n# foot\nd: >+\n  q\n\ne: {f: [1, 2 ], g: }\nh:\n- i: x\n  j: y\n- |\n k\nl: m\n";
    let (stream, root) = one(text)?;
    let table: [(&[PathPart<'_>], &str); 11] = [
        (&["a".into()], "'it''s'"),
        (&["b".into()], ""),
        (&["c".into()], "|- # why\n  one\n\n  two"),
        (&["d".into()], ">+\n  q\n"),
        (&["e".into()], "{f: [1, 2 ], g: }"),
        (&["e".into(), "f".into()], "[1, 2 ]"),
        (&["h".into()], "i: x\n  j: y\n- |\n k"),
        (&["h".into(), 0.into()], "i: x\n  j: y"),
        (&["h".into(), 0.into(), "j".into()], "y"),
        (&["h".into(), 1.into()], "|\n k"),
        (&["l".into()], "m"),
    ];
    for (path, expected) in table {
        let found = path.iter().try_fold(&root, |node, part| node.step(*part).map(|(_, value)| value));
        assert_eq!(found.map(|node| stream.slice(&node.span)), Some(expected), "{path:?}");
    }
    assert_eq!(root.get(&["c"]).and_then(Node::text), Some("one\n\ntwo"));
    assert_eq!(root.get(&["d"]).and_then(Node::text), Some("q\n\n"));
    let comments: Vec<_> = stream.documents()[0].comments.iter().map(|span| stream.slice(span)).collect();
    assert_eq!(comments, ["# head", "# x", "# why", "# foot"]);
    Ok(())
}

#[test]
fn positions_are_lines_and_columns_from_one() -> Result<()> {
    let (stream, _) = one("a: 1\nb:\n  - ü: {x: 2}\n    d: 3\n")?;
    let position = |path: &[PathPart<'_>]| stream.position(0, path);
    assert_eq!(position(&["a".into()]), Some((1, 4)));
    assert_eq!(position(&["b".into()]), Some((2, 1)));
    assert_eq!(position(&["b".into(), 0.into()]), Some((3, 5)));
    assert_eq!(position(&["b".into(), 0.into(), "ü".into(), "x".into()]), Some((3, 12)));
    assert_eq!(position(&["b".into(), 0.into(), "d".into()]), Some((4, 8)));
    assert_eq!(position(&["nope".into()]), None);
    Ok(())
}

#[test]
fn documents_reach_to_the_next_ones_start() -> Result<()> {
    let text = "# top\na: 1\n# tail\n---\nb: 2\n...\n# between\n---\n";
    let stream = Stream::parse(text)?;
    let spans: Vec<_> = stream.documents().iter().map(|document| stream.slice(&document.span)).collect();
    assert_eq!(spans, ["# top\na: 1\n# tail\n", "---\nb: 2\n...\n# between\n", "---\n"]);
    assert!(stream.documents()[2].root.is_null());
    assert_eq!(Stream::parse("# nothing\n")?.documents().len(), 0);
    Ok(())
}

#[test]
fn a_block_scalar_at_the_end_without_a_line_break_has_none() -> Result<()> {
    let (_, root) = one("a: |\n  x")?;
    assert_eq!(root.get(&["a"]).and_then(Node::text), Some("x"));
    let (_, root) = one("a: |\n  x\n")?;
    assert_eq!(root.get(&["a"]).and_then(Node::text), Some("x\n"));
    Ok(())
}

#[test]
fn aliases_are_copies_and_bombs_are_refused() -> Result<()> {
    let (_, root) = one("a: &x {k: 1}\nb: *x\n")?;
    assert_eq!(root.get(&["b"]).map(Node::value), root.get(&["a"]).map(Node::value));
    assert!(root.get(&["b", "k"]).is_some_and(|node| node.shared));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(Stream::parse(bomb).is_err());
    assert!(Stream::parse("a: &a [*a]\n").is_err());
    Ok(())
}

#[test]
fn twice_the_same_key_and_deep_nesting_are_refused_with_their_place() {
    let message = |text: String| Stream::parse(text).map(|_| ()).map_err(|error| error.what);
    assert_eq!(
        message("a: 1\nb:\n  c: 1\n  c: 2\n".to_owned()),
        Err("line 4, column 3: key \"c\" is written twice".to_owned())
    );
    assert!(message("[".repeat(5000)).is_err());
    assert!(message(format!("{}{}", "[".repeat(150), "]".repeat(150))).is_err());
    assert!(message("a: [1\n".to_owned()).is_err());
}

#[test]
fn what_is_written_reads_back_the_same() -> Result<()> {
    let text = "a: {\"x y\": 'true', b: 0777}\nlist: [1, two, {k: v}, []]\nempty: {}\nnone:\nblock: |\n  a\n  b\nyes: no\n";
    let (_, root) = one(text)?;
    let mut out = String::new();
    for (key, value) in root.entries() {
        write_block(&mut out, key, value, 0, 4);
    }
    assert_eq!(one(&out)?.1.value(), root.value(), "{out}");
    assert_eq!(one(&inline(&root))?.1.value(), root.value());
    Ok(())
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".*") {
        let _ = Stream::parse(text);
    }

    #[test]
    fn parsing_yaml_like_text_never_panics_and_spans_are_in_the_text(
        text in r#"([a-c:{}\[\],"'|>&*!#?%~+ \n\r\t.-]|- |: |\n  |---\n|\.\.\.\n|&a |\*a|!!str |ü){0,60}"#
    ) {
        if let Ok(stream) = Stream::parse(text.clone()) {
            for document in stream.documents() {
                check_spans(&document.root, &text)?;
            }
        }
    }

    #[test]
    fn a_quoted_text_is_that_text(text in "\\PC*|[\\x00-\\x1f\\x7f-\\xa0 a\"\\\\]*") {
        let (_, root) = one(&quote(&text)).map_err(|error| TestCaseError::fail(error.what))?;
        prop_assert_eq!(root.text(), Some(text.as_str()));
    }
}

fn check_spans(node: &Node, text: &str) -> std::result::Result<(), TestCaseError> {
    prop_assert!(text.get(node.span.clone()).is_some(), "{:?} of {:?}", node.span, text);
    for (key, value) in node.entries() {
        check_spans(key, text)?;
        check_spans(value, text)?;
    }
    node.items().iter().try_for_each(|item| check_spans(item, text))
}

/// Pairs of texts, each in another style, order or type than the other; whether they mean the same.
#[test]
fn nodes_mean_the_same_exactly_when_their_values_are_equal() -> Result<()> {
    for (a, b, same) in [
        ("a", "\"a\"", true),
        ("1", "\"1\"", false),
        ("0x10", "16", true),
        ("1", "1.0", false),
        (".nan", ".NaN", true),
        ("!!str 1", "\"1\"", true),
        ("!!str 1", "1", false),
        ("!mine 1", "!yours 1", false),
        ("{a: 1, b: 2}", "b: 2\na: 1", true),
        ("{a: 1, b: 2}", "{a: 1}", false),
        ("{a: 1}", "{a: 1, b: 2}", false),
        ("{a: 1, b: 2}", "{a: 2, b: 1}", false),
        ("{a: {b: [1, {c: d}]}}", "a:\n  b:\n  - 1\n  - c: 'd'", true),
        ("[1, 2]", "[2, 1]", false),
        ("[1]", "[1, 1]", false),
        ("[]", "{}", false),
        ("{}", "~", false),
        ("a", "[a]", false),
        ("a: |\n  b\n", "a: \"b\\n\"", true),
        ("&x a", "a", true),
    ] {
        let (a, b) = (one(a)?.1, one(b)?.1);
        assert_eq!(a.value() == b.value(), same, "{a:?} and {b:?}");
        assert_eq!((a.means(&b), b.means(&a)), (same, same), "{a:?} and {b:?}");
    }
    Ok(())
}
