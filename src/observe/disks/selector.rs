//! Disk selectors: the CEL expressions that Talos evaluates over its disks.
//!
//! Talos checks types before it evaluates, and refuses `disk.size > 100 * GiB` because a literal without `u` is an
//! int and sizes are uint. The `cel` crate does not check, so the two mistakes people make are looked for here:
//! names that do not exist and operands that do not go together.

use std::collections::HashMap;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, Program, Value};

use super::Disk;
use crate::error::{Error, Result};

/// Longer expressions are refused: reading and evaluating them is recursive, and as deep as they are long.
const MAX_LENGTH: usize = 1000;

/// The stack for that, in bytes; only what is used of it is ever taken from the system.
const STACK: usize = 256 << 20;

/// Constants of Talos' environment (siderolabs/talos, pkg/machinery/cel/celenv), all uint.
const UNITS: [(&str, u64); 12] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
];

/// The indices of the disks a selector matches, in their order.
///
/// # Errors
/// `Kind::Invalid` with the expression: malformed, unknown names, operands of different types, no true or false.
pub fn select(expression: &str, disks: &[Disk]) -> Result<Vec<usize>> {
    if expression.len() > MAX_LENGTH {
        return Err(Error::invalid(format!("a disk selector is longer than {MAX_LENGTH} characters")));
    }
    let joined = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        thread.spawn_scoped(scope, || evaluate(expression, disks)).map(|thread| thread.join())
    });
    match joined {
        Ok(Ok(matches)) => matches,
        Ok(Err(_)) => Err(Error::invalid(format!("the disk selector `{expression}` cannot be read"))),
        Err(error) => {
            Err(Error::failed(format!("the disk selector `{expression}`: no thread for it: {error}")))
        }
    }
}

fn evaluate(expression: &str, disks: &[Disk]) -> Result<Vec<usize>> {
    let wrong = |what: String| Error::invalid(format!("the disk selector `{expression}`: {what}"));
    let program = Program::compile(expression).map_err(|errors| {
        let first = errors.errors.first().map_or_else(String::new, |first| first.msg.clone());
        wrong(format!("cannot be read: {first}"))
    })?;
    match (Checker { variables: Vec::new() }).infer(program.expression()) {
        Ok(Type::Bool | Type::Unknown) => {}
        Ok(other) => return Err(wrong(format!("gives {}, and true or false is needed", other.name()))),
        Err(mistake) => return Err(mistake.hint.into_iter().fold(wrong(mistake.what), Error::hint)),
    }
    let mut matches = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let context = context(disk).map_err(&wrong)?;
        match program.execute(&context) {
            Ok(Value::Bool(true)) => matches.push(index),
            Ok(Value::Bool(false)) => {}
            Ok(other) => {
                return Err(wrong(format!("gives {}, and true or false is needed", other.type_of())));
            }
            Err(error) => return Err(wrong(format!("on disk {}: {error}", disk.id))),
        }
    }
    Ok(matches)
}

/// The names an expression can use, with their values for one disk.
fn context(disk: &Disk) -> Result<Context<'static, 'static>, String> {
    let mut context = Context::default();
    let fields: HashMap<&str, Value> = FIELDS.iter().map(|(name, _, read)| (*name, read(disk))).collect();
    context.add_variable_from_value("disk", fields);
    context.add_variable_from_value("system_disk", disk.system);
    for (name, value) in UNITS {
        context.add_variable_from_value(name, value);
    }
    let glob = |pattern: std::sync::Arc<String>, text: std::sync::Arc<String>| glob(&pattern, &text);
    context.add_function("glob", glob).map_err(|error| error.to_string())?;
    Ok(context)
}

/// Whether `text` matches `pattern`, in which `*` stands for anything and nothing else is special
/// (ryanuber/go-glob, which Talos uses).
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let tail = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match text.split_once(piece) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Bool,
    Int,
    Uint,
    Double,
    String,
    Strings,
    Unknown,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Uint => "a uint",
            Self::Double => "a double",
            Self::String => "a string",
            Self::Strings => "a list of strings",
            Self::Unknown => "something",
        }
    }
}

type Field = (&'static str, Type, fn(&Disk) -> Value);

/// The fields of `disk` (siderolabs/talos, api/resource/definitions/block/block.proto, `DiskSpec`).
const FIELDS: [Field; 18] = [
    ("dev_path", Type::String, |disk| disk.spec.dev_path.as_str().into()),
    ("size", Type::Uint, |disk| disk.spec.size.into()),
    ("pretty_size", Type::String, |disk| disk.spec.pretty_size.as_str().into()),
    ("io_size", Type::Uint, |disk| disk.spec.io_size.into()),
    ("sector_size", Type::Uint, |disk| disk.spec.sector_size.into()),
    ("readonly", Type::Bool, |disk| disk.spec.readonly.into()),
    ("cdrom", Type::Bool, |disk| disk.spec.cdrom.into()),
    ("model", Type::String, |disk| disk.spec.model.as_str().into()),
    ("serial", Type::String, |disk| disk.spec.serial.as_str().into()),
    ("modalias", Type::String, |disk| disk.spec.modalias.as_str().into()),
    ("wwid", Type::String, |disk| disk.spec.wwid.as_str().into()),
    ("uuid", Type::String, |disk| disk.spec.uuid.as_str().into()),
    ("bus_path", Type::String, |disk| disk.spec.bus_path.as_str().into()),
    ("sub_system", Type::String, |disk| disk.spec.sub_system.as_str().into()),
    ("transport", Type::String, |disk| disk.spec.transport.as_str().into()),
    ("rotational", Type::Bool, |disk| disk.spec.rotational.into()),
    ("secondary_disks", Type::Strings, |disk| disk.spec.secondary_disks.clone().into()),
    ("symlinks", Type::Strings, |disk| disk.spec.symlinks.clone().into()),
];

struct Mistake {
    what: String,
    hint: Option<String>,
}

impl From<String> for Mistake {
    fn from(what: String) -> Self {
        Self { what, hint: None }
    }
}

/// Works out types as far as they are plain to see; what it cannot tell is left to the evaluation.
struct Checker {
    /// The variables of the comprehensions around.
    variables: Vec<String>,
}

impl Checker {
    fn infer(&mut self, expression: &IdedExpr) -> Result<Type, Mistake> {
        match &expression.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::UInt(_) => Type::Uint,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::String(_) => Type::String,
                LiteralValue::Bytes(_) | LiteralValue::Null => Type::Unknown,
            }),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) if name == "disk" && !self.variables.contains(name) => {
                    field(&select.field, select.test)
                }
                _ => self.infer(&select.operand).map(|_| Type::Unknown),
            },
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.all(&list.elements).map(|_| Type::Unknown),
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(message) => self.entries(message.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(it) => {
                self.infer(&it.iter_range)?;
                self.infer(&it.accu_init)?;
                let outer = self.variables.len();
                self.variables.extend([it.iter_var.clone(), it.accu_var.clone()]);
                self.variables.extend(it.iter_var2.clone());
                for part in [&it.loop_cond, &it.loop_step, &it.result] {
                    self.infer(part)?;
                }
                self.variables.truncate(outer);
                Ok(Type::Unknown)
            }
            Expr::Unspecified => Ok(Type::Unknown),
        }
    }

    fn variable(&self, name: &String) -> Result<Type, Mistake> {
        if self.variables.contains(name) || name == "disk" {
            return Ok(Type::Unknown);
        }
        if name == "system_disk" {
            return Ok(Type::Bool);
        }
        if UNITS.iter().any(|(unit, _)| unit == name) {
            return Ok(Type::Uint);
        }
        Err(format!("there is no `{name}`; there are disk, system_disk and units such as GiB").into())
    }

    fn call(&mut self, call: &CallExpr) -> Result<Type, Mistake> {
        if let Some(target) = &call.target {
            self.infer(target)?;
        }
        let arguments = self.all(&call.args)?;
        let (left, right) = match arguments[..] {
            [left, right] => (left, right),
            _ => (Type::Unknown, Type::Unknown),
        };
        match call.func_name.as_str() {
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => same(&call.func_name, left, right).map(|_| Type::Bool),
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO => same(&call.func_name, left, right),
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => {
                match arguments.iter().find(|found| !matches!(found, Type::Bool | Type::Unknown)) {
                    Some(found) => {
                        Err(format!("{} stands where true or false is needed", found.name()).into())
                    }
                    None => Ok(Type::Bool),
                }
            }
            operators::IN => Ok(Type::Bool),
            "glob" => match arguments[..] {
                [Type::String | Type::Unknown, Type::String | Type::Unknown] if call.target.is_none() => {
                    Ok(Type::Bool)
                }
                _ => Err("glob needs a pattern and a string".to_owned().into()),
            },
            _ => Ok(Type::Unknown),
        }
    }

    fn all(&mut self, expressions: &[IdedExpr]) -> Result<Vec<Type>, Mistake> {
        expressions.iter().map(|expression| self.infer(expression)).collect()
    }

    fn entries<'a>(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Result<Type, Mistake> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.infer(&field.value)?,
                EntryExpr::MapEntry(entry) => {
                    self.infer(&entry.key)?;
                    self.infer(&entry.value)?
                }
            };
        }
        Ok(Type::Unknown)
    }
}

/// The type of a field of `disk`; asking whether there is one, as `has` does, gives a bool.
fn field(name: &str, test: bool) -> Result<Type, Mistake> {
    match FIELDS.iter().find(|(field, _, _)| *field == name) {
        Some(_) if test => Ok(Type::Bool),
        Some((_, found, _)) => Ok(*found),
        None => {
            let known: Vec<_> = FIELDS.iter().map(|(field, _, _)| *field).collect();
            let hint = Some(format!("there are {}", known.join(", ")));
            Err(Mistake { what: format!("a disk has no field `{name}`"), hint })
        }
    }
}

/// The common type of both sides of an operator.
fn same(operator: &str, left: Type, right: Type) -> Result<Type, Mistake> {
    match (left, right) {
        (Type::Unknown, other) | (other, Type::Unknown) => Ok(other),
        (left, right) if left == right => Ok(left),
        (left, right) => {
            let mixed = matches!((left, right), (Type::Int, Type::Uint) | (Type::Uint, Type::Int));
            let hint =
                mixed.then(|| "sizes are unsigned: write numbers with u, such as `100u * GiB`".to_owned());
            let operator = operator.trim_matches('_');
            Err(Mistake { what: format!("`{operator}` between {} and {}", left.name(), right.name()), hint })
        }
    }
}
