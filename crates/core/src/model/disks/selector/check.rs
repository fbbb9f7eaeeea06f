//! Types an expression as Talos does before it evaluates one, and refuses what Talos refuses.
//!
//! On the way it makes two things explicit in the tree that the `cel` crate would answer in another way: whether a
//! field of a disk is set, and what a regular expression means.

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, SelectExpr, SourceInfo,
    operators,
};

use super::environment::{FIELDS, Field, GLOB_SINCE, Release, UNITS};
use super::types::{Signature, Type, look_up};
use super::words::nearest;
use super::{Mistake, pattern};

/// Deeper trees are refused; Talos goes deeper, to about 250 of a kind.
const MOST_LEVELS: usize = 80;

/// What people call the fields elsewhere.
const OTHER_NAMES: [(&str, &str); 7] = [
    ("type", "transport"),
    ("name", "dev_path"),
    ("device", "dev_path"),
    ("id", "wwid"),
    ("vendor", "model"),
    ("capacity", "size"),
    ("by_id", "symlinks"),
];

pub(super) struct Checker<'a> {
    pub(super) text: &'a str,
    pub(super) source: &'a SourceInfo,
    talos: Release,
    /// Those of the macros around, the innermost last.
    pub(super) variables: Vec<(String, Type)>,
    level: usize,
}

impl<'a> Checker<'a> {
    pub(super) fn new(text: &'a str, source: &'a SourceInfo, talos: Release) -> Self {
        Self { text, source, talos, variables: Vec::new(), level: 0 }
    }

    /// The whole expression, which has to say yes or no.
    pub(super) fn whole(&mut self, it: &mut IdedExpr) -> Result<(), Mistake> {
        match self.check(it)? {
            Type::Bool => Ok(()),
            Type::String => Err(self
                .mistake(it.id, "gives a string, and true or false is needed")
                .hint("compare it, such as disk.serial == \"…\"")),
            other => {
                Err(self.mistake(it.id, format!("gives {}, and true or false is needed", other.named())))
            }
        }
    }

    fn check(&mut self, it: &mut IdedExpr) -> Result<Type, Mistake> {
        if self.level == MOST_LEVELS {
            return Err(self
                .mistake(it.id, "is nested too deep")
                .hint("write it flatter, with && and || in a row"));
        }
        self.level += 1;
        let id = it.id;
        let found = match &mut it.expr {
            Expr::Literal(literal) => self.literal(id, literal),
            Expr::Ident(name) => self.variable(id, name),
            Expr::Select(_) => self.select(it),
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => {
                let mut element = Type::Open;
                for part in &mut list.elements {
                    element = self.joined("list", &element, part)?;
                }
                Ok(Type::list(element))
            }
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(it) => self.comprehension(id, it),
            Expr::Struct(_) => Err(self.mistake(id, "nodeprep does not evaluate messages")),
            Expr::Unspecified => Err(self.mistake(id, "cannot be read")),
        };
        self.level -= 1;
        found
    }

    fn literal(&self, id: u64, literal: &LiteralValue) -> Result<Type, Mistake> {
        match literal {
            LiteralValue::Boolean(_) => Ok(Type::Bool),
            LiteralValue::Int(_) => Ok(Type::Int),
            LiteralValue::UInt(_) => Ok(Type::Uint),
            LiteralValue::Double(_) => Ok(Type::Double),
            LiteralValue::String(_) => Ok(Type::String),
            LiteralValue::Bytes(_) => Ok(Type::Bytes),
            LiteralValue::Null => Err(self
                .mistake(id, "nothing of a disk is null")
                .hint("what is not known is empty: compare with \"\", or ask has(disk.serial)")),
        }
    }

    fn variable(&self, id: u64, name: &str) -> Result<Type, Mistake> {
        let local = self.variables.iter().rev().find(|(known, _)| known == name.trim_start_matches('.'));
        match (local, name.strip_prefix('.')) {
            (Some((_, found)), None) => return Ok(found.clone()),
            (Some(_), Some(name)) => {
                return Err(self.mistake(id, format!("`.{name}` and a variable `{name}` around it")));
            }
            (None, _) => {}
        }
        let name = name.trim_start_matches('.');
        match name {
            "disk" => Ok(Type::Disk),
            "system_disk" => Ok(Type::Bool),
            _ if UNITS.iter().any(|(unit, _)| *unit == name) => Ok(Type::Uint),
            _ => Err(self.unknown_name(id, name)),
        }
    }

    fn select(&mut self, it: &mut IdedExpr) -> Result<Type, Mistake> {
        let id = it.id;
        let Expr::Select(select) = &mut it.expr else { return Err(self.mistake(id, "cannot be read")) };
        match self.check(&mut select.operand)? {
            Type::Disk => {
                let field = self.field(id, &select.field)?;
                if !select.test {
                    return Ok(field.read.kind());
                }
                // In protobuf, a field that holds its zero is one that is not set.
                let set = SelectExpr { test: false, ..std::mem::take(select) };
                let new = |expr| IdedExpr { id, expr };
                it.expr = Expr::Call(CallExpr {
                    func_name: operators::NOT_EQUALS.to_owned(),
                    target: None,
                    args: vec![new(Expr::Select(set)), new(field.read.unset())],
                });
                Ok(Type::Bool)
            }
            Type::Map(key, value) if *key == Type::String => {
                Ok(if select.test { Type::Bool } else { *value })
            }
            other => Err(self.mistake(id, format!("{} has no fields", other.named()))),
        }
    }

    fn field(&self, id: u64, name: &str) -> Result<Field, Mistake> {
        let known = FIELDS.iter().find(|field| field.name == name);
        match known {
            Some(field) if self.talos >= (1, field.since) => Ok(*field),
            Some(field) => {
                let (major, minor) = self.talos;
                Err(self
                    .at_field(id, name, format!("disks of Talos {major}.{minor} have no `{name}`"))
                    .hint(format!("it came with Talos 1.{}", field.since)))
            }
            None => {
                let mut near = nearest(name, FIELDS.iter().map(|field| field.name));
                near.extend(OTHER_NAMES.iter().filter(|(other, _)| *other == name).map(|(_, field)| *field));
                let all: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
                let hint = match (name, near.is_empty()) {
                    ("system" | "system_disk", _) => "write system_disk, without disk.".to_owned(),
                    (_, true) => format!("there are {}", all.join(", ")),
                    (_, false) => format!("there is {}", near.join(", ")),
                };
                Err(self.at_field(id, name, format!("a disk has no field `{name}`")).hint(hint))
            }
        }
    }

    /// The type of list elements so far, joined with one more.
    fn joined(&mut self, of: &str, known: &Type, part: &mut IdedExpr) -> Result<Type, Mistake> {
        let found = self.check(part)?;
        known.join(&found).ok_or_else(|| {
            self.mistake(part.id, format!("{} in a {of} of {known}", found.named()))
                .hint("write them all in one type; numbers beside sizes have a u, such as 100u")
        })
    }

    fn map(&mut self, map: &mut MapExpr) -> Result<Type, Mistake> {
        let (mut keys, mut values, mut seen) = (Type::Open, Type::Open, BTreeSet::new());
        for entry in &mut map.entries {
            let id = entry.id;
            let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                return Err(self.mistake(id, "cannot be read"));
            };
            let Expr::Literal(key) = &entry.key.expr else {
                return Err(self.mistake(entry.key.id, "nodeprep knows maps with written-out keys only"));
            };
            let again = !seen.insert(format!("{key:?}"));
            let key = entry.key.id;
            keys = self.joined("map", &keys, &mut entry.key)?;
            if again || !matches!(keys, Type::String | Type::Int | Type::Uint | Type::Bool) {
                let what = if again { "a key that is there already" } else { "is no key of a map" };
                return Err(self.mistake(key, what));
            }
            values = self.joined("map", &values, &mut entry.value)?;
        }
        Ok(Type::Map(Box::new(keys), Box::new(values)))
    }

    fn comprehension(&mut self, id: u64, it: &mut ComprehensionExpr) -> Result<Type, Mistake> {
        // Which macro it was is not in the tree any more; Talos has no such name for this one.
        let before = self.text.get(..self.offset(id)).unwrap_or_default().trim_end();
        if before.ends_with("existsOne") {
            return Err(self.function(id, "existsOne", "is no function").hint("there is .exists_one"));
        }
        let element = match self.check(&mut it.iter_range)? {
            Type::List(element) if !element.is_open() => *element,
            Type::Map(key, value) if !key.is_open() && !value.is_open() => *key,
            Type::List(_) | Type::Map(..) => {
                return Err(
                    self.mistake(it.iter_range.id, "is empty, so nothing can be asked of its elements")
                );
            }
            other => {
                let what = format!("{} is no list, so nothing can be asked of its elements", other.named());
                return Err(self.mistake(it.iter_range.id, what));
            }
        };
        // Talos keeps the one name for itself, and the other is no plain name.
        if it.iter_var == "__result__" || it.iter_var.starts_with('.') || it.iter_var2.is_some() {
            return Err(self.mistake(it.loop_step.id, format!("`{}` can't be a variable", it.iter_var)));
        }
        let result = self.check(&mut it.accu_init)?;
        let outside = self.variables.len();
        self.variables.push((it.accu_var.clone(), result));
        self.variables.push((it.iter_var.clone(), element));
        self.check(&mut it.loop_cond)?;
        let result = self.check(&mut it.loop_step)?;
        self.variables.truncate(outside);
        self.variables.push((it.accu_var.clone(), result));
        let result = self.check(&mut it.result);
        self.variables.truncate(outside);
        result
    }

    fn call(&mut self, id: u64, call: &mut CallExpr) -> Result<Type, Mistake> {
        if let Some(mistake) = self.no_macro(id, &call.func_name) {
            return Err(mistake);
        }
        let mut types = Vec::new();
        for operand in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
            types.push(self.check(operand)?);
        }
        let plain = call.func_name.trim_start_matches('.');
        let name = if call.target.is_some() { format!(".{plain}") } else { plain.to_owned() };
        if let Some(mistake) = self.no_condition(call, &types) {
            return Err(mistake);
        }
        if name == "glob" && self.talos < GLOB_SINCE {
            return Err(self.function(id, plain, "came with Talos 1.9"));
        }
        match look_up(&name, &types) {
            Signature::Result(Type::Open) => Err(self.mistake(id, "is empty, so it has no elements")),
            Signature::Result(found) => {
                if plain == "matches" {
                    self.pattern(call)?;
                }
                Ok(found)
            }
            Signature::OtherArguments(others) => Err(self.other_arguments(id, call, &types, &others)),
            Signature::LeftOut => Err(self
                .function(id, plain, "is not evaluated by nodeprep")
                .hint("its answer could differ from Talos'; compare texts as texts and numbers as numbers")),
            Signature::Nothing => Err(self.unknown_function(id, plain, &name)),
        }
    }

    /// What stands where true or false is needed and is neither.
    fn no_condition(&self, call: &CallExpr, types: &[Type]) -> Option<Mistake> {
        let conditions = match call.func_name.as_str() {
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => types.len(),
            operators::CONDITIONAL => 1,
            _ => 0,
        };
        let mut operands = call.args.iter().zip(types).take(conditions);
        let (operand, found) = operands.find(|(_, found)| **found != Type::Bool)?;
        let what = format!("{} stands where true or false is needed", found.named());
        let mistake = self.mistake(operand.id, what);
        Some(match found {
            Type::String => mistake.hint("compare it, such as disk.serial == \"…\""),
            _ => mistake,
        })
    }

    fn pattern(&self, call: &mut CallExpr) -> Result<(), Mistake> {
        let Some(argument) = call.args.last_mut() else { return Ok(()) };
        let Expr::Literal(LiteralValue::String(text)) = &mut argument.expr else {
            return Err(self
                .mistake(argument.id, "nodeprep evaluates written-out regular expressions only")
                .hint("use contains, startsWith, endsWith or glob with a computed text"));
        };
        match pattern::translate(text.inner()) {
            Ok(translated) => *text = translated.into(),
            Err(why) => {
                return Err(self
                    .mistake(
                        argument.id,
                        format!("the regular expression is not one that nodeprep takes: {why}"),
                    )
                    .hint("write a simpler one, or use contains, startsWith, endsWith or glob"));
            }
        }
        Ok(())
    }

    /// A mistake about a field, which comes after the place of its selection.
    fn at_field(&self, id: u64, name: &str, what: String) -> Mistake {
        let mut mistake = self.mistake(id, what);
        let after = self.text.get(mistake.offset..).unwrap_or_default();
        mistake.offset += after.find(name).unwrap_or_default();
        mistake
    }

    /// A mistake about a function, at its name; a call is known by the bracket after it.
    pub(super) fn function(&self, id: u64, name: &str, what: &str) -> Mistake {
        let mut mistake = self.mistake(id, format!("`{name}` {what}"));
        let before = self.text.get(..mistake.offset).unwrap_or_default().trim_end();
        if let Some(before) = before.strip_suffix(name) {
            mistake.offset = before.len();
        }
        mistake
    }

    pub(super) fn mistake(&self, id: u64, what: impl Into<String>) -> Mistake {
        Mistake { offset: self.offset(id), what: what.into(), hint: None }
    }

    fn offset(&self, id: u64) -> usize {
        self.source.offset_for(id).map_or(0, |(start, _)| start as usize)
    }
}
