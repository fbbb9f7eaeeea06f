use cel::ExecutionError;

use super::*;
use crate::error::Kind;
use crate::model::disks::Holder;
use crate::model::disks::tests::fleet;

fn names(disks: &[Disk], chosen: Vec<usize>) -> Vec<&str> {
    chosen.into_iter().map(|index| disks[index].id.as_str()).collect()
}

fn chosen(disks: &[Disk], text: &str, volume: Option<&str>) -> Vec<usize> {
    let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    selector.check(NEWEST).unwrap_or_else(|error| panic!("{text}: {error}"));
    selector
        .choose(disks, |disk| volume.is_some_and(|name| disk.holder == Holder::Volume(name.into())))
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_mistake_is_told_with_its_column_and_what_to_write_instead() {
    let table = [
        ("disk.size > 100 * GiB", "column 17: `*` between an int and a uint", "write 100u * GiB"),
        ("disk.size > GiB * 0x10", "column 17: `*` between a uint and an int", "write GiB * 0x10u"),
        ("disk.size > 100", "column 11: `>` between a uint and an int", "write 100u, as in 100u * GiB"),
        ("disk.size > 1.5 * TB", "column 17: `*` between a double and a uint", "such as 1536u * MiB"),
        ("disk.size > size(disk.model)", "column 11: `>` between a uint and an int", "uint(…)"),
        ("disk.serial == 5", "column 13: `==` between a string and an int", "\"5\""),
        ("disk.rotational == 'true'", "column 17: `==` between a bool and a string", "without quotes"),
        ("disk.nope == ''", "column 6: a disk has no field `nope`", "dev_path, size"),
        ("disk.transportx == ''", "column 6: a disk has no field `transportx`", "there is transport"),
        ("disk.devPath == ''", "column 6: a disk has no field `devPath`", "dev_path"),
        ("disk.type == 'nvme'", "column 6: a disk has no field `type`", "transport"),
        ("!disk.system_disk", "column 7: a disk has no field", "write system_disk, without disk."),
        ("true && has(disk.seriel)", "column 18: a disk has no field `seriel`", "serial"),
        ("serial == 'x'", "column 1: there is no `serial`", "write disk.serial"),
        ("disks.size > 1u", "column 1: there is no `disks`", "there is disk"),
        ("disk.size > 1u * gib", "column 18: there is no `gib`", "there is GiB"),
        ("disk.symlinks.exists(s, t == '')", "column 25: there is no `t`", ""),
        ("disk.size", "column 5: gives a uint", ""),
        ("disk.serial", "column 5: gives a string", "compare it"),
        ("disk.rotational || disk.model", "column 24: a string stands where", "compare it"),
        ("disk.symlinks.exists(s, size(s))", "column 29: an int stands where", ""),
        ("disk.symlinks.exists(s)", "column 15: `exists` is written", "disk.symlinks.exists(s, s.contains"),
        ("disk.symlinks.existsOne(s, true)", "column 15: `existsOne` is no function", ".exists_one"),
        ("disk.serial.exists(c, c == 'S')", "column 5: a string is no list", ""),
        ("glob(disk.size, 'x')", "column 1: `glob` does not take a uint and a string", "(string, string)"),
        ("disk.model.startWith('x')", "column 12: `startWith` is no function", "startsWith"),
        ("disk.serial in ['a', 1]", "column 22: an int in a list of string", "one type"),
        ("uint(disk.serial) > 1u", "column 1: `uint` is not evaluated", ""),
        ("disk.model.matches('[')", "column 20: the regular expression", ""),
        ("disk.serial == null", "column 16: nothing of a disk is null", "has(disk.serial)"),
        ("'☃☃' == disk.size", "column 6: `==` between a string and a uint", ""),
        ("true &&\n  disk.syze > 1u", "line 2, column 8: a disk has no field `syze`", "size"),
        ("disk.size >", "column 12: cannot be read", "a selector is CEL"),
        ("", "column 1: cannot be read", "a selector is CEL"),
        ("disk.serial = 'x'", "cannot be read", "write =="),
        ("disk.rotational and system_disk", "cannot be read", "write &&"),
        ("disk.model == “x”", "cannot be read", "plain quotes"),
        ("seriel:S64", "cannot be read", "serial:…"),
        ("nvmee", "column 1: there is no `nvmee`", "presets are nvme"),
    ];
    for (expression, what, hint) in table {
        let error = accept(expression, NEWEST).expect_err(expression);
        assert_eq!(error.kind, Kind::Invalid, "{expression}");
        assert!(error.what.contains(what), "{expression}: {}", error.what);
        assert!(error.what.contains(expression), "{expression}: {}", error.what);
        let said = error.hint.unwrap_or_default();
        assert!(said.contains(hint), "{expression}: {said}");
    }
}

#[test]
fn what_a_release_does_not_have_is_refused_for_it() {
    for (expression, since) in
        [("disk.firmware_version == ''", 14), ("size(disk.symlinks) > 1", 10), ("glob('a', disk.uuid)", 9)]
    {
        accept(expression, (1, since)).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let error = accept(expression, (1, since - 1)).expect_err(expression);
        let said = format!("{error} {}", error.hint.as_deref().unwrap_or_default());
        assert!(said.contains(&format!("came with Talos 1.{since}")), "{said}");
    }
}

#[test]
fn an_expression_that_fails_on_a_disk_names_the_disk() {
    let error = select("disk.size / (disk.size - disk.size) == 1u", &fleet()).unwrap_err();
    assert!(error.what.contains("fails on disk nvme0n1"), "{}", error.what);
}

#[test]
fn presets_are_expressions_that_talos_takes() {
    let disks = fleet();
    let table: [(&str, &[&str]); 5] = [
        ("nvme", &["nvme0n1", "nvme1n1"]),
        ("ssd", &["nvme0n1", "nvme1n1"]),
        ("serial:SERIAL-sdb", &["sdb"]),
        ("wwid: nvme.nvme1n1", &["nvme1n1"]),
        ("serial:SERIAL-sdb\" || true || disk.serial == \"", &[]),
    ];
    for (text, expected) in table {
        assert_eq!(names(&disks, chosen(&disks, text, None)), expected, "{text}");
    }
    let quoted = Selector::parse("serial:a\"b\\c\u{1}'☃").unwrap().to_string();
    assert_eq!(quoted, r#"disk.serial == "a\"b\\c\u0001'☃""#);
    let error = Selector::parse("serial: ").unwrap_err();
    assert_eq!((error.kind, error.what.contains("names no serial")), (Kind::Invalid, true));
}

#[test]
fn quoted_serials_are_found_whatever_is_in_them() {
    for serial in ["a\"b", "a\\", "\\u0041", "a\nb\tc", "'", "\u{7f}\u{1}", "☃👍", "{{x}}"] {
        let mut disks = fleet();
        disks[1].spec.serial = serial.into();
        assert_eq!(chosen(&disks, &format!("serial:{serial}"), None), [1], "{serial:?}");
    }
}

#[test]
fn the_largest_free_nvme_disk_is_taken_if_there_is_one() {
    let mut disks = fleet();
    for disk in &mut disks {
        disk.eligible = if disk.system { Err("is the system disk".into()) } else { Ok(()) };
    }
    let selector = Selector::parse("largest-free-nvme").unwrap();
    let error = selector.choose(&disks, |_| false).unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.what.contains("nvme0n1") && error.what.contains("nvme1n1"), "{}", error.what);
    disks[1].spec.size += 1;
    assert_eq!(chosen(&disks, "largest-free-nvme", None), [1]);
    disks[1].eligible = Err("holds xfs".into());
    assert_eq!(chosen(&disks, "largest-free-nvme", None), [0]);
    disks[1].holder = Holder::Volume("openebs".into());
    assert_eq!(chosen(&disks, "largest-free-nvme", Some("openebs")), [1], "it holds the volume already");
    assert_eq!(chosen(&disks, "largest-free-nvme", Some("other")), [0]);
    disks.retain(|disk| disk.spec.transport != "nvme");
    assert!(chosen(&disks, "largest-free-nvme", None).is_empty());
}

#[test]
fn a_regular_expression_means_what_it_means_to_go() {
    let table = [
        (r"\d+", "٣", false),
        (r"^\w$", "ä", false),
        (r"a\sb", "a\u{b}b", false),
        (r"^[\w.-]+$", "a-b.c", true),
        (r"^[^\d]$", "٣", true),
        (r"(?i)^samsung", "SAMSUNG", true),
        ("^(a{2}b){1}$", "aab", false),
        ("^(?:a|b)+?$", "abab", true),
        (r"^\x{2603}\.$", "☃.", true),
        ("^a]}$", "a]}", true),
        (r"^\<\_\/$", "<_/", true),
    ];
    for (pattern, text, matches) in table {
        match pattern::translate(pattern) {
            Ok(translated) => {
                let found = regex::Regex::new(&translated).unwrap().is_match(text);
                assert_eq!(found, matches, "{pattern} as {translated}");
            }
            Err(why) => assert!(!matches, "{pattern}: {why}"),
        }
    }
    for refused in [
        "[",
        "(",
        ")",
        "a**",
        "a{2}{3}",
        "(a{2}){2}",
        "a{,3}",
        "a{03}",
        "a{3",
        "a{1001}",
        "*",
        "^*",
        r"\pL",
        r"\Q",
        r"\x4",
        r"\x{41",
        "(?=a)",
        "(?P<n>a)",
        "(?m)a",
        "[[=a=]]",
        "[]a]",
        r"[\D]",
        r"[\d-z]",
        r"\",
        r"\8",
        "(a{1000}b{1000}){3}",
        ".{1000}.{1000}.{1000}",
    ] {
        assert!(pattern::translate(refused).is_err(), "{refused}");
    }
}

#[test]
fn what_would_run_for_ages_is_refused() {
    let nested = (0..8).fold("true".to_owned(), |body, _| format!("[1,2,3,4,5,6,7,8,9,10].all(x, {body})"));
    let grown = format!("size(['a']{}) > 0", ".map(s, s + s + s + s)".repeat(40));
    for expression in [nested, grown] {
        let error = accept(&expression, NEWEST).expect_err(&expression);
        assert!(error.what.contains("would take too long"), "{}", error.what);
    }
    let fair = "disk.symlinks.exists(a, disk.symlinks.exists(b, a != b && b.matches('^/dev/[a-z]+')))";
    accept(fair, NEWEST).unwrap();
    assert!(accept(&"!".repeat(5000), NEWEST).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]
    #[test]
    fn no_text_makes_it_panic(
        text in "[a-z0-9.()!<>=&|+*/%\\[\\]{}?:,'\" _-]{0,120}",
        operator in "(==|&&|[+]|[*]|>|[?]|[|][|]|[.]|: )",
        times in 1usize..1200,
    ) {
        let disks = fleet();
        let _ = select(&text, &disks);
        let _ = select(&format!("disk.{text}"), &disks);
        let _ = select(&vec!["1"; times].join(operator.as_str()), &disks);
        let _ = select(&format!("{}system_disk{}", "(".repeat(times), ")".repeat(times)), &disks);
        let _ = select(&format!("{}system_disk", "!".repeat(times)), &disks);
        let _ = select(&format!("{}1", "-".repeat(times)), &disks);
        let _ = select(&format!("disk{}", ".size".repeat(times)), &disks);
        let _ = select(&format!("{}1{}", "[".repeat(times), "]".repeat(times)), &disks);
        let _ = select(&format!("{}1", "true ? 1 : ".repeat(times)), &disks);
        let _ = select(&format!("{}1{}", "{1: ".repeat(times), "}".repeat(times)), &disks);
        let _ = select(&format!("disk.model.matches('{text}')"), &disks);
        let _ = Selector::parse(&text).and_then(|selector| selector.choose(&disks, |_| false));
    }
}

/// Writes expressions of a wanted type at random, now and then of another one.
struct Writer(u64);

impl Writer {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn leaf(&mut self, kind: char) -> String {
        let from: &[&str] = match kind {
            'b' => &["true", "system_disk", "disk.rotational", "has(disk.wwid)", "false"],
            'i' => &["1", "-7", "0", "9223372036854775807", "size(disk.model)"],
            'u' => &["1u", "disk.size", "GiB", "0u", "disk.sector_size", "0xFFu"],
            'd' => &["1.5", "-2.0", "3.5e2"],
            's' => &["'a'", "disk.model", "disk.serial", "''", "'☃'", "s"],
            'y' => &["b'a'", "b'\\xff'"],
            'l' => &["disk.symlinks", "[]", "['a', 'b']", "disk.secondary_disks"],
            _ => &["{'a': 1u}", "{'nvme': disk.size}"],
        };
        self.pick(from).to_owned()
    }

    fn write(&mut self, kind: char, depth: usize) -> String {
        let kind =
            if self.below(40) == 0 { ['b', 'i', 'u', 'd', 's', 'y', 'l', 'm'][self.below(8)] } else { kind };
        if depth == 0 || self.below(6) == 0 {
            return self.leaf(kind);
        }
        let shapes: &[&str] = match kind {
            'b' => &[
                "b && b",
                "b || b",
                "!b",
                "b ? b : b",
                "i < i",
                "u >= u",
                "d > d",
                "s == s",
                "s != s",
                "y < y",
                "l == l",
                "s in l",
                "s in m",
                "s.contains(s)",
                "s.startsWith(s)",
                "s.endsWith(s)",
                "glob(s, s)",
                "m == m",
                "b == b",
                "l.exists(s, b)",
                "l.all(s, b)",
                "l.exists_one(s, b)",
                "s.matches('^[a-z]')",
                "m.exists(s, b)",
            ],
            'i' => &[
                "i + i", "i - i", "i * i", "i / i", "i % i", "-(i)", "int(u)", "int(s)", "size(l)",
                "s.size()", "size(m)",
            ],
            'u' => &["u + u", "u - u", "u * u", "u / u", "u % u", "uint(i)", "m[s]", "b ? u : u"],
            'd' => &["d + d", "d - d", "d * d", "double(i)", "double(u)"],
            's' => &["s + s", "string(i)", "string(u)", "string(b)", "l[i]", "string(y)", "b ? s : s"],
            'y' => &["y + y", "bytes(s)"],
            'l' => &["l + l", "l.map(s, s)", "l.filter(s, b)", "l.map(s, b, s)", "[s, s]"],
            _ => &["{'a': u}", "b ? m : m"],
        };
        let shape = self.pick(shapes).to_owned();
        let mut out = String::new();
        for word in shape.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let (name, end) =
                word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
            match name {
                // The variable of a macro stays one.
                "s" if end == "," && shape.starts_with(['l', 'm']) => out.push('s'),
                "b" | "i" | "u" | "d" | "s" | "y" | "l" | "m" => {
                    let part = self.write(name.chars().next().unwrap(), depth - 1);
                    out.push_str(&format!("({part})"));
                }
                other => out.push_str(other),
            }
            out.push_str(end);
        }
        out
    }
}

#[test]
fn what_is_accepted_gives_a_bool_or_fails_as_cel_does() {
    let (disks, library) = (fleet(), library());
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..1500 {
        let text = Writer(seed).write('b', 4);
        let checked = with_stack(&text, || {
            let tree = read(&text, NEWEST)?;
            Ok(disks
                .iter()
                .map(|disk| Value::resolve(&tree, &context(&library, disk).unwrap()))
                .collect::<Vec<_>>())
        });
        let Ok(results) = checked else {
            refused += 1;
            continue;
        };
        accepted += 1;
        for result in results {
            let good = matches!(
                result,
                Ok(Value::Bool(_))
                    | Err(ExecutionError::DivisionByZero(_)
                        | ExecutionError::RemainderByZero(_)
                        | ExecutionError::Overflow(..)
                        | ExecutionError::IndexOutOfBounds(_)
                        | ExecutionError::NoSuchKey(_)
                        | ExecutionError::FunctionError { .. })
            );
            assert!(good, "{text}: {result:?}");
        }
    }
    assert!(accepted > 300 && refused > 100, "{accepted} accepted, {refused} refused");
}
