//! Expressions over a session's fields: `status == "idle" && idle > 2.hours`, `[short_id, idle]`, `-message_count`. Checked
//! before anything is asked or done.

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, Dynamic, Engine, EvalAltResult, Expr, NativeCallContext, Position, Scope, Stmt};

use super::condition::{self, Understood};
use super::diagnostic;
use super::failure::{At, Failure, Fallible};
use super::field::{Field, Kind};
use super::session::Session;
use super::suggestion;
use super::value;
use crate::wire::Status;

/// A compiled and checked expression.
pub struct Expression {
    text: String,
    ast: AST,
    fields: Vec<Field>,
}

impl Expression {
    /// Errors: not an expression, an unknown field, a comparison that could never hold.
    pub fn compile(engine: &Engine, text: &str) -> Result<Self, Failure> {
        let mut scope = Scope::new();
        for field in Field::ALL {
            scope.push_dynamic(field.name(), Dynamic::UNIT);
        }
        let wrong = |sentence: String, hint: Option<String>| Failure::Usage {
            message: format!("the expression `{text}` is wrong: {sentence}"),
            hint: Some(hint.unwrap_or_else(|| {
                "It is an expression over a session's fields, like status == \"idle\" && idle > 2.hours."
                    .to_owned()
            })),
        };
        let ast = engine
            .compile_expression_with_scope(&scope, text)
            .map_err(|error| wrong(diagnostic::syntax(error.err_type()).0, None))?;
        let mut fields = BTreeSet::new();
        let mut problem = None;
        ast.walk(&mut |path| {
            if let Some(ASTNode::Expr(expression)) = path.last() {
                if let Some(field) = variable(expression) {
                    fields.insert(field.name());
                } else if let Some(name) = unknown(expression) {
                    problem.get_or_insert((
                        format!("a session has no field `{name}`"),
                        suggestion::did_you_mean(name, names()).unwrap_or_else(|| {
                            format!("Fields: {}.", names().collect::<Vec<_>>().join(", "))
                        }),
                    ));
                }
                if let Err(found) = check(expression) {
                    problem.get_or_insert(found);
                }
            }
            if let Some(ASTNode::Stmt(Stmt::FnCall(call, position))) = path.last()
                && let Err(found) = check(&Expr::FnCall(call.clone(), *position))
            {
                problem.get_or_insert(found);
            }
            true
        });
        match problem {
            Some((message, hint)) => Err(wrong(message, Some(hint))),
            None => Ok(Self {
                text: text.to_owned(),
                ast,
                fields: fields.into_iter().filter_map(Field::named).collect(),
            }),
        }
    }

    /// The condition that it is, as far as that needs no engine; `now` in milliseconds since the Unix epoch.
    pub fn understood(&self, now: i64) -> Understood {
        match self.ast.statements() {
            // It is evaluated by itself, so no function of the script's own goes before ours.
            [statement] => condition::of_expression(statement, &|_, _| false, now),
            _ => Understood::NOTHING,
        }
    }

    /// The fields that it asks for.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.fields.iter().copied()
    }

    /// What the engine says of it, told of the expression: its places are not the script's.
    fn failed(&self, engine: &Engine, error: EvalAltResult) -> Box<EvalAltResult> {
        if matches!(error, EvalAltResult::ErrorTerminated(..)) {
            return error.into();
        }
        let failure = match &error {
            EvalAltResult::ErrorRuntime(value, _) => value.clone().try_cast::<Failure>(),
            _ => None,
        };
        let (message, hint) = match failure {
            Some(failure) => (failure.to_string(), failure.hint_text().map(str::to_owned)),
            None => diagnostic::describe(engine, error),
        };
        Failure::Usage { message: format!("the expression `{}` failed: {message}", self.text), hint }
            .at_position(Position::NONE)
    }

    /// Its value for a session; `now` in milliseconds since the Unix epoch. Error: it fails.
    pub fn value(&self, ctx: &NativeCallContext, session: &Session, now: i64) -> Fallible<Dynamic> {
        self.evaluate(ctx.engine(), session, now).map_err(|mut error| {
            error.set_position(ctx.call_position());
            error
        })
    }

    /// The same where no script calls it: the error has no place.
    pub fn evaluate(&self, engine: &Engine, session: &Session, now: i64) -> Fallible<Dynamic> {
        let mut scope = Scope::new();
        for field in &self.fields {
            scope.push_dynamic(field.name(), field.of(session, now));
        }
        engine
            .eval_ast_with_scope::<Dynamic>(&mut scope, &self.ast)
            .map_err(|error| self.failed(engine, *error))
    }

    /// Whether it holds for a session. Errors: it fails, or answers something other than true or false.
    pub fn holds(&self, ctx: &NativeCallContext, session: &Session, now: i64) -> Fallible<bool> {
        let answer = self.value(ctx, session, now)?;
        answer
            .as_bool()
            .map_err(|_| {
                Failure::script(format!(
                    "the condition must answer true or false, and answered {}",
                    value::type_name(&answer)
                ))
            })
            .at(ctx)
    }
}

fn names() -> impl Iterator<Item = &'static str> + Clone {
    Field::ALL.into_iter().map(Field::name)
}

/// The session's field that this expression is.
fn variable(expression: &Expr) -> Option<Field> {
    let Expr::Variable(variable, ..) = expression else { return None };
    Field::named(&variable.1)
}

/// The name of a variable that is nothing here: no field, and no parameter of a function.
fn unknown(expression: &Expr) -> Option<&str> {
    let Expr::Variable(variable, ..) = expression else { return None };
    let (index, name, namespace, _) = &**variable;
    (index.is_none() && namespace.is_empty()).then_some(name.as_str())
}

/// Of which sort an expression's value is, where that can be told without running it.
fn kind(expression: &Expr) -> Option<Kind> {
    match expression {
        Expr::BoolConstant(..) | Expr::And(..) | Expr::Or(..) => Some(Kind::Boolean),
        Expr::IntegerConstant(..) | Expr::FloatConstant(..) => Some(Kind::Number),
        Expr::StringConstant(..) | Expr::InterpolatedString(..) => Some(Kind::Text),
        Expr::Variable(..) => variable(expression).map(Field::kind),
        Expr::Dot(parts, ..) => match (&parts.lhs, &parts.rhs) {
            (Expr::IntegerConstant(..), Expr::Property(property, _)) => {
                is_unit_of_time(&property.2).then_some(Kind::Duration)
            }
            _ => None,
        },
        Expr::FnCall(call, _) if call.namespace.is_empty() => match call.name.as_str() {
            "ago" | "now" | "time" => Some(Kind::Time),
            "duration" => Some(Kind::Duration),
            _ => None,
        },
        _ => None,
    }
}

fn is_unit_of_time(name: &str) -> bool {
    matches!(name, "days" | "hours" | "minutes" | "seconds" | "millis")
}

/// Refuses a comparison that the engine would answer with false without a word. The error is a sentence and a hint.
fn check(expression: &Expr) -> Result<(), (String, String)> {
    let Expr::FnCall(call, _) = expression else { return Ok(()) };
    if !matches!(call.name.as_str(), "==" | "!=" | "<" | "<=" | ">" | ">=") || call.args.len() != 2 {
        return Ok(());
    }
    let (left, right) = (&call.args[0], &call.args[1]);
    let (Some(a), Some(b)) = (kind(left), kind(right)) else { return Ok(()) };
    match (a, b) {
        (Kind::Status, Kind::Status) => Ok(()),
        (Kind::Status, Kind::Text) => known_status(right),
        (Kind::Text, Kind::Status) => known_status(left),
        (a, b) if a == b => Ok(()),
        (Kind::Duration, _) | (_, Kind::Duration) => {
            Err(mixed(a, b, "Compare with a duration: 2.hours, 30.minutes."))
        }
        (Kind::Time, _) | (_, Kind::Time) => {
            Err(mixed(a, b, "Compare with a time: ago(2.days), time(\"2026-03-09T10:15:00Z\")."))
        }
        (Kind::Number, _) | (_, Kind::Number) => Err(mixed(a, b, "Write a number without quotes.")),
        _ => Err(mixed(a, b, "Compare things of one kind.")),
    }
}

fn mixed(a: Kind, b: Kind, hint: &str) -> (String, String) {
    let told = |kind| match kind {
        Kind::Boolean => "true or false",
        Kind::Duration => "a duration",
        Kind::Number => "a number",
        Kind::Status => "a status",
        Kind::Text => "text",
        Kind::Time => "a time",
    };
    (format!("{} is compared with {}", told(a), told(b)), hint.to_owned())
}

fn known_status(word: &Expr) -> Result<(), (String, String)> {
    let Expr::StringConstant(word, _) = word else { return Ok(()) };
    if Status::ALL.iter().any(|status| status.as_str() == word.as_str()) {
        return Ok(());
    }
    let words = Status::ALL.map(Status::as_str);
    let hint = match word.parse::<Status>() {
        Ok(status) => format!("Write `{status}`."),
        Err(_) => suggestion::did_you_mean(word, words.into_iter())
            .unwrap_or_else(|| format!("A status is one of {}.", words.join(", "))),
    };
    Err((format!("no session has the status \"{word}\""), hint))
}
