//! What to write instead of what can't be typed.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::Mistake;
use super::check::Checker;
use super::environment::{FIELDS, UNITS};
use super::types::{Type, functions};
use super::words::nearest;

impl<'a> Checker<'a> {
    pub(super) fn unknown_name(&self, id: u64, name: &str) -> Mistake {
        let locals =
            self.variables.iter().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with('@'));
        let globals = UNITS.iter().map(|(unit, _)| *unit).chain(["disk", "system_disk"]);
        let near = nearest(name, globals.chain(locals));
        let hint = if let Some(field) = FIELDS.iter().find(|field| field.name == name) {
            format!("write disk.{}", field.name)
        } else if near.is_empty() {
            "there are disk, system_disk and units such as GiB; presets are nvme, ssd, serial:…, wwid:…, \
             largest-free-nvme"
                .to_owned()
        } else {
            format!("there is {}", near.join(", "))
        };
        self.mistake(id, format!("there is no `{name}`")).hint(hint)
    }

    pub(super) fn other_arguments(
        &self,
        id: u64,
        call: &CallExpr,
        types: &[Type],
        others: &[String],
    ) -> Mistake {
        let list: Vec<String> = types.iter().map(Type::named).collect();
        let operator = call.func_name.trim_matches(['_', '@']).replace("_", "");
        let named = call.func_name.chars().all(|c| c.is_ascii_alphabetic() || c == '.');
        if named {
            let what = format!("does not take {}", list.join(" and "));
            return self
                .function(id, call.func_name.trim_start_matches('.'), &what)
                .hint(format!("it takes ({})", others.join(") or (")));
        }
        let what = match &list[..] {
            [one] => format!("`{operator}` before {one}"),
            [left, right] => format!("`{operator}` between {left} and {right}"),
            _ => format!(
                "`{operator}` between {}",
                list.iter().skip(1).cloned().collect::<Vec<_>>().join(" and ")
            ),
        };
        match self.instead(&operator, call, types) {
            Some(hint) => self.mistake(id, what).hint(hint),
            None => self.mistake(id, what),
        }
    }

    /// What to write instead of an operator between two types.
    fn instead(&self, operator: &str, call: &CallExpr, types: &[Type]) -> Option<String> {
        let ([left, right], [a, b]) = (&call.args[..], types) else { return None };
        let (odd, other, wanted) = match (a, b) {
            (Type::Int | Type::Double, Type::Uint) | (Type::Int, Type::String) => (left, right, b),
            (Type::Uint, Type::Int | Type::Double) | (Type::String, Type::Int) => (right, left, a),
            (Type::Bool, Type::String) | (Type::String, Type::Bool) => {
                return Some("true and false are written without quotes".to_owned());
            }
            _ => return None,
        };
        let (Some(text), Expr::Literal(literal)) = (self.written(odd), &odd.expr) else {
            return (*wanted == Type::Uint).then(|| "sizes are uint: convert with uint(…)".to_owned());
        };
        if *wanted == Type::String {
            return Some(format!("write it in quotes: \"{text}\""));
        }
        if !matches!(literal, LiteralValue::Int(number) if *number.inner() >= 0) {
            return Some("sizes are whole numbers (uint): write them with u, such as 1536u * MiB".to_owned());
        }
        let other = self.written(other).filter(|_| matches!(operator, "*" | "/" | "+" | "-" | "%"));
        let example = match other {
            Some(other) if std::ptr::eq(odd, left) => format!("{text}u {operator} {other}"),
            Some(other) => format!("{other} {operator} {text}u"),
            None => format!("{text}u, as in 100u * GiB"),
        };
        Some(format!("sizes are unsigned: write {example}"))
    }

    /// A literal or a name, as it is written.
    fn written(&self, it: &IdedExpr) -> Option<&'a str> {
        let leaf = matches!(it.expr, Expr::Literal(_) | Expr::Ident(_));
        let (start, stop) = self.source.offset_for(it.id).filter(|_| leaf)?;
        self.text.get(start as usize..=stop as usize)
    }

    /// A macro with the wrong number of arguments is left a call by the parser.
    pub(super) fn no_macro(&self, id: u64, name: &str) -> Option<Mistake> {
        let hint = match name {
            "has" => "write has(disk.serial)",
            "all" | "exists" | "exists_one" | "existsOne" | "map" | "filter" => {
                "write a variable and a condition, such as disk.symlinks.exists(s, s.contains(\"nvme\"))"
            }
            _ => return None,
        };
        Some(self.function(id, name, "is written in another way").hint(hint))
    }

    pub(super) fn unknown_function(&self, id: u64, plain: &str, name: &str) -> Mistake {
        let macros = ["has", ".all", ".exists", ".exists_one", ".map", ".filter"];
        let near = nearest(name, functions().chain(macros));
        let mistake = self.function(id, plain, "is no function");
        if near.is_empty() { mistake } else { mistake.hint(format!("there is {}", near.join(", "))) }
    }
}
