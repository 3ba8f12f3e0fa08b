//! Expressions over a session's fields: `status == "idle" && idle > 2.hours`. Checked before anything is asked or done.

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, Dynamic, Engine, EvalAltResult, Expr, NativeCallContext, Scope, Stmt};

use super::diagnostic;
use super::failure::{At, Failure, Fallible};
use super::session::{Kind, Session};
use super::suggestion;
use super::value;
use crate::wire::Status;

/// A compiled and checked expression.
pub struct Predicate {
    text: String,
    ast: AST,
    fields: Vec<&'static str>,
}

impl Predicate {
    /// Errors: not an expression, an unknown field, a comparison that could never hold.
    pub fn compile(engine: &Engine, text: &str) -> Result<Self, Failure> {
        let mut scope = Scope::new();
        for (name, _) in Session::FIELDS {
            scope.push_dynamic(name, Dynamic::UNIT);
        }
        let wrong = |sentence: String, hint: Option<String>| Failure::Usage {
            message: format!("the condition `{text}` is wrong: {sentence}"),
            hint: Some(hint.unwrap_or_else(|| {
                "It is an expression over a session's fields, like status == \"idle\" && idle > 2.hours."
                    .to_owned()
            })),
        };
        let ast =
            engine.compile_expression_with_scope(&scope, text).map_err(|error| match *error.err_type() {
                rhai::ParseErrorType::VariableUndefined(ref name) => wrong(
                    format!("a session has no field `{name}`"),
                    Some(suggestion::did_you_mean(name, field_names()).unwrap_or_else(|| {
                        format!("Fields: {}.", field_names().collect::<Vec<_>>().join(", "))
                    })),
                ),
                ref other => wrong(other.to_string().trim_end_matches('.').to_owned(), None),
            })?;
        let mut fields = BTreeSet::new();
        let mut problem = None;
        ast.walk(&mut |path| {
            if let Some(ASTNode::Expr(expression)) = path.last() {
                if let Some((name, _)) = variable(expression) {
                    fields.insert(name);
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
            None => Ok(Self { text: text.to_owned(), ast, fields: fields.into_iter().collect() }),
        }
    }

    /// What the engine says of it, told of the condition: its places are not the script's.
    fn failed(&self, ctx: &NativeCallContext, error: EvalAltResult) -> Box<EvalAltResult> {
        if matches!(error, EvalAltResult::ErrorTerminated(..)) {
            return error.into();
        }
        let failure = match &error {
            EvalAltResult::ErrorRuntime(value, _) => value.clone().try_cast::<Failure>(),
            _ => None,
        };
        let (message, hint) = match failure {
            Some(failure) => (failure.to_string(), failure.hint_text().map(str::to_owned)),
            None => diagnostic::describe(ctx.engine(), error),
        };
        Failure::Usage { message: format!("the condition `{}` failed: {message}", self.text), hint }.at(ctx)
    }

    /// Those for which it holds. Errors: it fails, or answers something other than true or false.
    pub fn select(
        &self,
        ctx: &NativeCallContext,
        sessions: Vec<Session>,
        now: i64,
    ) -> Fallible<Vec<Session>> {
        let mut scope = Scope::new();
        let mut selected = Vec::new();
        for session in sessions {
            scope.rewind(0);
            for name in &self.fields {
                scope.push_dynamic(*name, session.field(name, now).unwrap_or_default());
            }
            let answer = match ctx.engine().eval_ast_with_scope::<Dynamic>(&mut scope, &self.ast) {
                Ok(answer) => answer,
                Err(error) => return Err(self.failed(ctx, *error)),
            };
            let holds = answer
                .as_bool()
                .map_err(|_| {
                    Failure::script(format!(
                        "the condition must answer true or false, and answered {}",
                        value::type_name(&answer)
                    ))
                })
                .at(ctx)?;
            if holds {
                selected.push(session);
            }
        }
        Ok(selected)
    }
}

fn field_names() -> impl Iterator<Item = &'static str> + Clone {
    Session::FIELDS.iter().map(|(name, _)| *name)
}

/// The session's field that this expression is.
fn variable(expression: &Expr) -> Option<(&'static str, Kind)> {
    let Expr::Variable(variable, ..) = expression else { return None };
    Session::FIELDS.iter().copied().find(|(name, _)| *name == variable.1.as_str())
}

/// Of which sort an expression's value is, where that can be told without running it.
fn kind(expression: &Expr) -> Option<Kind> {
    match expression {
        Expr::BoolConstant(..) | Expr::And(..) | Expr::Or(..) => Some(Kind::Boolean),
        Expr::IntegerConstant(..) | Expr::FloatConstant(..) => Some(Kind::Number),
        Expr::StringConstant(..) | Expr::InterpolatedString(..) => Some(Kind::Text),
        Expr::Variable(..) => variable(expression).map(|(_, kind)| kind),
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
