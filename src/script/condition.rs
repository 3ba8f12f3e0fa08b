//! Conditions on a session that need no engine: read from an expression or a closure's body, tested natively, and turned
//! into questions that the server can answer.
//!
//! What isn't understood here stays the engine's; so does everything that could fail or could compare things of different
//! sorts. A condition that is understood gives the same answer as the engine would.

use std::cmp::Ordering;

use rhai::{
    AST, ASTFlags, ASTNode, Array, Dynamic, Expr, FnCallExpr, FnPtr, ImmutableString, Map, NativeCallContext,
    Stmt,
};

use super::duration::{DAY, HOUR, MINUTE, SECOND, Span};
use super::field::{Field, Kind};
use super::session::Session;
use super::time::Moment;
use crate::wire::{SessionQuery, Status, Timestamp};

/// A condition on one session.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Always(bool),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
    /// A field that is a number, a duration or a time, against the number, or milliseconds.
    Number(Field, Relation, i64),
    /// A field that is text.
    Text(Field, Relation, String),
    OneOf(Field, Vec<String>),
    /// A field that is text and has this part somewhere.
    Part(Field, Place, String),
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Where a part of a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Anywhere,
    Start,
    End,
}

impl Relation {
    fn read(operator: &str) -> Option<Self> {
        Some(match operator {
            "==" => Self::Equal,
            "!=" => Self::Unequal,
            "<" => Self::Less,
            "<=" => Self::AtMost,
            ">" => Self::More,
            ">=" => Self::AtLeast,
            _ => return None,
        })
    }

    /// The same with the sides exchanged.
    fn turned(self) -> Self {
        match self {
            Self::Less => Self::More,
            Self::AtMost => Self::AtLeast,
            Self::More => Self::Less,
            Self::AtLeast => Self::AtMost,
            same => same,
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

impl Condition {
    /// Whether it holds; `now` in milliseconds since the Unix epoch.
    pub fn holds(&self, session: &Session, now: i64) -> bool {
        self.holds_of(&|field| field.text_of(session), &|field| field.number_of(session, now))
    }

    fn holds_of<'t>(
        &self,
        text_of: &impl Fn(Field) -> Option<&'t str>,
        number_of: &impl Fn(Field) -> Option<i64>,
    ) -> bool {
        match self {
            Self::Always(answer) => *answer,
            Self::Not(condition) => !condition.holds_of(text_of, number_of),
            Self::All(conditions) => conditions.iter().all(|one| one.holds_of(text_of, number_of)),
            Self::Any(conditions) => conditions.iter().any(|one| one.holds_of(text_of, number_of)),
            Self::Number(field, relation, number) => {
                number_of(*field).is_some_and(|value| relation.holds(value.cmp(number)))
            }
            Self::Text(field, relation, text) => {
                text_of(*field).is_some_and(|value| relation.holds(value.cmp(text.as_str())))
            }
            Self::OneOf(field, texts) => {
                text_of(*field).is_some_and(|value| texts.iter().any(|text| text == value))
            }
            Self::Part(field, place, part) => text_of(*field).is_some_and(|value| match place {
                Place::Anywhere => value.contains(part.as_str()),
                Place::Start => value.starts_with(part.as_str()),
                Place::End => value.ends_with(part.as_str()),
            }),
        }
    }

    /// This one and another.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always(true), other) | (other, Self::Always(true)) => other,
            (Self::All(mut conditions), Self::All(others)) => {
                conditions.extend(others);
                Self::All(conditions)
            }
            (Self::All(mut conditions), other) => {
                conditions.push(other);
                Self::All(conditions)
            }
            (one, other) => Self::All(vec![one, other]),
        }
    }

    /// The opposite.
    pub fn negated(self) -> Self {
        match self {
            Self::Always(answer) => Self::Always(!answer),
            Self::Not(condition) => *condition,
            other => Self::Not(Box::new(other)),
        }
    }

    /// The statuses for which it holds, if it asks for nothing else.
    fn statuses(&self) -> Option<Vec<Status>> {
        self.asks_only(Field::Status).then(|| {
            let holds = |status: &Status| self.holds_of(&|_| Some(status.as_str()), &|_| None);
            Status::ALL.into_iter().filter(holds).collect()
        })
    }

    fn asks_only(&self, wanted: Field) -> bool {
        match self {
            Self::Always(_) => true,
            Self::Not(condition) => condition.asks_only(wanted),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().all(|condition| condition.asks_only(wanted))
            }
            Self::Number(field, ..)
            | Self::Text(field, ..)
            | Self::OneOf(field, _)
            | Self::Part(field, ..) => *field == wanted,
        }
    }

    /// Narrows a query by as much of this condition as the server can answer. What is left must be tested on every
    /// session that it answers with; `Always(false)` if no session can fit.
    pub fn narrow(self, query: &mut SessionQuery, now: i64) -> Self {
        if let Some(statuses) = self.statuses() {
            return match &self {
                Self::Always(_) => self,
                _ => narrow_list(&mut query.status, statuses),
            };
        }
        let time = Timestamp::from_millis;
        match self {
            Self::All(conditions) => conditions
                .into_iter()
                .map(|condition| condition.narrow(query, now))
                .fold(Self::Always(true), |left, one| match (left, one) {
                    (Self::Always(false), _) | (_, Self::Always(false)) => Self::Always(false),
                    (left, one) => left.and(one),
                }),
            Self::Text(Field::Agent, Relation::Equal, name) => narrow_agents(query, vec![name]),
            Self::OneOf(Field::Agent, names) => narrow_agents(query, names),
            Self::Number(Field::MessageCount, relation, n) => {
                let (least, most) = match relation {
                    Relation::Equal => (Some(n), Some(n)),
                    Relation::Unequal => return Self::Number(Field::MessageCount, relation, n),
                    Relation::Less => (None, n.checked_sub(1)),
                    Relation::AtMost => (None, Some(n)),
                    Relation::More => (n.checked_add(1), None),
                    Relation::AtLeast => (Some(n), None),
                };
                if most.is_some_and(|most| most < 0) {
                    return Self::Always(false);
                }
                let count = |n: i64| u64::try_from(n).unwrap_or(0);
                query.min_messages = higher(query.min_messages, least.map(count));
                query.max_messages = lower(query.max_messages, most.map(count));
                Self::Always(true)
            }
            Self::Number(field @ (Field::CreatedAt | Field::LastActivityAt), relation, at) => {
                // Whatever lies at the ends of what a moment can hold is left to the test.
                if Timestamp::from_millis(at).as_millis() != at {
                    return Self::Number(field, relation, at);
                }
                let (after, before) = match relation {
                    Relation::Equal => (Some(at - 1), Some(at + 1)),
                    Relation::Unequal => return Self::Number(field, relation, at),
                    Relation::Less => (None, Some(at)),
                    Relation::AtMost => (None, Some(at + 1)),
                    Relation::More => (Some(at), None),
                    Relation::AtLeast => (Some(at - 1), None),
                };
                narrow_time(query, field, after.map(time), before.map(time));
                Self::Always(true)
            }
            // Older than: created before. A session from the future counts as 0 old.
            Self::Number(Field::Age, Relation::More, span) if span >= 0 => {
                narrow_time(query, Field::CreatedAt, None, Some(time(now.saturating_sub(span))));
                Self::Always(true)
            }
            Self::Number(Field::Age, Relation::AtLeast, span) if span > 0 => {
                narrow_time(query, Field::CreatedAt, None, Some(time(now.saturating_sub(span - 1))));
                Self::Always(true)
            }
            Self::Number(Field::Age, Relation::Less, span) if span > 0 => {
                narrow_time(query, Field::CreatedAt, Some(time(now.saturating_sub(span))), None);
                Self::Always(true)
            }
            Self::Number(Field::Age, Relation::AtMost, span) if span >= 0 => {
                narrow_time(
                    query,
                    Field::CreatedAt,
                    Some(time(now.saturating_sub(span).saturating_sub(1))),
                    None,
                );
                Self::Always(true)
            }
            // An active one is never idle.
            Self::Number(Field::Idle, Relation::More, span) if span >= 0 => {
                narrow_time(query, Field::LastActivityAt, None, Some(time(now.saturating_sub(span))));
                not_active(query)
            }
            Self::Number(Field::Idle, Relation::AtLeast, span) if span > 0 => {
                narrow_time(query, Field::LastActivityAt, None, Some(time(now.saturating_sub(span - 1))));
                not_active(query)
            }
            // The server doesn't mind the case.
            Self::Part(Field::Title, place, part) => {
                if query.title_contains.is_none() && !part.is_empty() {
                    query.title_contains = Some(part.clone());
                }
                Self::Part(Field::Title, place, part)
            }
            other => other,
        }
    }
}

/// The most names that are asked for at once.
const NAMES: usize = 50;

fn narrow_agents(query: &mut SessionQuery, names: Vec<String>) -> Condition {
    // An empty value in a query counts as not given, and no agent is called so.
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    match names.len() {
        0 => Condition::Always(false),
        1..=NAMES => narrow_list(&mut query.agent_name, names),
        _ => Condition::OneOf(Field::Agent, names),
    }
}

fn not_active(query: &mut SessionQuery) -> Condition {
    narrow_list(
        &mut query.status,
        Status::ALL.into_iter().filter(|status| *status != Status::Active).collect(),
    )
}

/// Keeps of a list of alternatives, empty for all, only these.
fn narrow_list<T: PartialEq>(list: &mut Vec<T>, wanted: Vec<T>) -> Condition {
    if list.is_empty() {
        *list = wanted;
    } else {
        list.retain(|one| wanted.contains(one));
    }
    Condition::Always(!list.is_empty())
}

fn narrow_time(query: &mut SessionQuery, field: Field, after: Option<Timestamp>, before: Option<Timestamp>) {
    let (known_after, known_before) = match field {
        Field::CreatedAt => (&mut query.created_after, &mut query.created_before),
        _ => (&mut query.active_after, &mut query.active_before),
    };
    *known_after = higher(*known_after, after);
    *known_before = lower(*known_before, before);
}

fn higher<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.max(b)
}

fn lower<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A value that doesn't depend on the session.
enum Constant {
    Number(i64),
    Span(i64),
    Moment(i64),
    Text(ImmutableString),
    Texts(Vec<String>),
    Map(Map),
}

/// How the parts of an expression are read.
pub struct Meaning<'a> {
    /// The closure's parameter that is the session; none where the fields are variables themselves.
    session: Option<&'a str>,
    /// What the closure has captured.
    captured: Vec<(&'a str, Dynamic)>,
    /// Functions that the script has defined itself go before ours.
    defined: &'a dyn Fn(&str, usize) -> bool,
    now: i64,
}

/// What a closure asks of a session, where it is understood.
pub fn of_closure(ctx: &NativeCallContext, function: &FnPtr, now: i64) -> Understood {
    with_closure(ctx, function, now, |meaning, body| meaning.condition(body)).unwrap_or(Understood::NOTHING)
}

/// What a map of fields and their values asks, where it is understood; an array means any of its values.
pub fn of_fields(fields: &Map) -> Understood {
    let mut read = fields.iter().filter(|(_, wanted)| !wanted.is_unit()).map(|(name, wanted)| {
        let field = Field::named(name)?;
        match constant_of(wanted.flatten_clone())? {
            Constant::Texts(texts) if is_text(field) => Some(Condition::OneOf(field, texts)),
            wanted => compare(field, Relation::Equal, wanted),
        }
    });
    let mut condition = Condition::Always(true);
    let whole = read.all(|one| match one {
        Some(one) => {
            condition = std::mem::replace(&mut condition, Condition::Always(true)).and(one);
            true
        }
        None => false,
    });
    Understood { condition, whole }
}

/// The field that a closure gives, if that is all it does: `|s| s.idle`.
pub fn field_of_closure(ctx: &NativeCallContext, function: &FnPtr) -> Option<Field> {
    with_closure(ctx, function, 0, |meaning, body| match body {
        Body::Expression(expression) => meaning.field(expression),
        Body::Call(_) => None,
    })
    .flatten()
}

fn with_closure<T>(
    ctx: &NativeCallContext,
    function: &FnPtr,
    now: i64,
    read: impl FnOnce(&Meaning, Body) -> T,
) -> Option<T> {
    let captured = function.curry();
    let parameters = captured.len() + 1;
    let (module, definition) = ctx
        .namespaces()
        .iter()
        .find_map(|module| Some((module, module.get_script_fn(function.fn_name(), parameters)?)))?;
    let (parameter, others) = definition.params.split_last()?;
    let defined = |name: &str, parameters: usize| {
        ctx.iter_namespaces().any(|module| module.get_script_fn(name, parameters).is_some())
    };
    let meaning = Meaning {
        session: Some(parameter),
        captured: others
            .iter()
            .map(|name| name.as_str())
            .zip(captured.iter().map(Dynamic::flatten_clone))
            .collect(),
        defined: &defined,
        now,
    };
    // The engine shows a function's body only to those who walk over all of it.
    let mut own = AST::new([], module.clone());
    own.retain_functions(|_, _, name, count| name == function.fn_name() && count == parameters);
    let mut read = Some(read);
    let mut answer = None;
    let mut statements = 0;
    own.walk(&mut |path| {
        if let [ASTNode::Stmt(statement)] = path {
            statements += 1;
            answer = match statement {
                Stmt::Expr(expression) => {
                    read.take().map(|read| read(&meaning, Body::Expression(expression)))
                }
                Stmt::FnCall(call, _) => read.take().map(|read| read(&meaning, Body::Call(call))),
                _ => None,
            };
        }
        true
    });
    answer.filter(|_| statements == 1)
}

/// What an expression over the fields asks, where it is understood.
pub fn of_expression(expression: &Stmt, defined: &dyn Fn(&str, usize) -> bool, now: i64) -> Understood {
    let meaning = Meaning { session: None, captured: Vec::new(), defined, now };
    match expression {
        Stmt::Expr(expression) => meaning.condition(Body::Expression(expression)),
        Stmt::FnCall(call, _) => meaning.condition(Body::Call(call)),
        _ => Understood::NOTHING,
    }
}

/// What is the value of a closure or an expression.
#[derive(Clone, Copy)]
enum Body<'a> {
    Expression(&'a Expr),
    Call(&'a FnCallExpr),
}

/// How much of a condition is understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Understood {
    /// What must hold in any case.
    pub condition: Condition,
    /// Whether that is all: if not, the engine decides.
    pub whole: bool,
}

impl Understood {
    pub const NOTHING: Self = Self { condition: Condition::Always(true), whole: false };
}

impl Meaning<'_> {
    fn condition(&self, body: Body) -> Understood {
        let whole = match body {
            Body::Expression(expression) => self.read(expression),
            Body::Call(call) => self.call(call),
        };
        match (whole, body) {
            (Some(condition), _) => Understood { condition, whole: true },
            // What stands first is tested first: if it doesn't hold, the rest is never asked, so it can't fail either.
            (None, Body::Expression(Expr::And(parts, _))) => {
                let first = parts.iter().map_while(|part| self.read(part));
                Understood { condition: first.fold(Condition::Always(true), Condition::and), whole: false }
            }
            (None, _) => Understood::NOTHING,
        }
    }

    fn read(&self, expression: &Expr) -> Option<Condition> {
        match expression {
            Expr::BoolConstant(answer, _) => Some(Condition::Always(*answer)),
            Expr::And(parts, _) => {
                parts.iter().map(|part| self.read(part)).collect::<Option<_>>().map(Condition::All)
            }
            Expr::Or(parts, _) => {
                parts.iter().map(|part| self.read(part)).collect::<Option<_>>().map(Condition::Any)
            }
            Expr::FnCall(call, _) => self.call(call),
            Expr::Dot(..) => self.part(expression),
            _ => None,
        }
    }

    fn call(&self, call: &FnCallExpr) -> Option<Condition> {
        if !call.namespace.is_empty() || (self.defined)(&call.name, call.args.len()) {
            return None;
        }
        match (call.name.as_str(), call.args.as_slice()) {
            ("!", [inner]) => self.read(inner).map(Condition::negated),
            // `x in [a, b]`.
            ("contains", [list, element]) => match self.constant(list)? {
                Constant::Texts(texts) => {
                    let field = self.field(element).filter(|field| is_text(*field))?;
                    Some(Condition::OneOf(field, texts))
                }
                _ => None,
            },
            (operator, [left, right]) => {
                let relation = Relation::read(operator)?;
                match self.field(left) {
                    Some(field) => compare(field, relation, self.constant(right)?),
                    None => compare(self.field(right)?, relation.turned(), self.constant(left)?),
                }
            }
            _ => None,
        }
    }

    /// `title.contains("x")`, `starts_with`, `ends_with`.
    fn part(&self, expression: &Expr) -> Option<Condition> {
        let Expr::Dot(outer, options, _) = expression else { return None };
        let (field, method) = match self.session {
            None => (self.field(&outer.lhs)?, &outer.rhs),
            Some(_) => {
                let Expr::Dot(inner, ..) = &outer.rhs else { return None };
                (self.property(&outer.lhs, &inner.lhs)?, &inner.rhs)
            }
        };
        let Expr::MethodCall(call, _) = method else { return None };
        if !is_text(field)
            || options.intersects(ASTFlags::NEGATED)
            || (self.defined)(&call.name, call.args.len())
        {
            return None;
        }
        let place = match call.name.as_str() {
            "contains" => Place::Anywhere,
            "starts_with" => Place::Start,
            "ends_with" => Place::End,
            _ => return None,
        };
        match call.args.as_slice() {
            [part] => match self.constant(part)? {
                Constant::Text(part) => Some(Condition::Part(field, place, part.to_string())),
                _ => None,
            },
            _ => None,
        }
    }

    fn field(&self, expression: &Expr) -> Option<Field> {
        match (self.session, expression) {
            (None, Expr::Variable(variable, ..)) => Field::named(&variable.1),
            (Some(_), Expr::Dot(parts, options, _)) if !options.intersects(ASTFlags::NEGATED) => {
                self.property(&parts.lhs, &parts.rhs)
            }
            _ => None,
        }
    }

    fn property(&self, of: &Expr, name: &Expr) -> Option<Field> {
        match (of, name) {
            (Expr::Variable(variable, ..), Expr::Property(property, _))
                if self.session == Some(variable.1.as_str()) =>
            {
                Field::named(&property.2)
            }
            _ => None,
        }
    }

    fn constant(&self, expression: &Expr) -> Option<Constant> {
        match expression {
            Expr::IntegerConstant(n, _) => Some(Constant::Number(*n)),
            Expr::StringConstant(text, _) => Some(Constant::Text(text.clone())),
            Expr::DynamicConstant(value, _) => constant_of((**value).clone()),
            Expr::Array(parts, _) => {
                let texts = parts.iter().map(|part| match self.constant(part)? {
                    Constant::Text(text) => Some(text.to_string()),
                    _ => None,
                });
                texts.collect::<Option<_>>().map(Constant::Texts)
            }
            Expr::Variable(variable, ..) => {
                let (_, value) = self.captured.iter().find(|(name, _)| *name == variable.1.as_str())?;
                constant_of(value.clone())
            }
            Expr::Dot(parts, options, _) if !options.intersects(ASTFlags::NEGATED) => {
                let Expr::Property(property, _) = &parts.rhs else { return None };
                match self.constant(&parts.lhs)? {
                    Constant::Number(n) => {
                        unit(&property.2).and_then(|unit| n.checked_mul(unit)).map(Constant::Span)
                    }
                    Constant::Map(map) => constant_of(map.get(property.2.as_str())?.flatten_clone()),
                    _ => None,
                }
            }
            Expr::FnCall(call, _) => self.value_of_call(call),
            _ => None,
        }
    }

    fn value_of_call(&self, call: &FnCallExpr) -> Option<Constant> {
        if !call.namespace.is_empty() || (self.defined)(&call.name, call.args.len()) {
            return None;
        }
        match (call.name.as_str(), call.args.as_slice()) {
            ("now", []) => Some(Constant::Moment(self.now)),
            ("ago", [span]) => match self.constant(span)? {
                Constant::Span(span) => moment(self.now.checked_sub(span)?),
                _ => None,
            },
            ("duration", [text]) => match self.constant(text)? {
                Constant::Text(text) => Span::parse(&text).ok().map(|span| Constant::Span(span.0)),
                Constant::Span(span) => Some(Constant::Span(span)),
                _ => None,
            },
            ("time", [text]) => match self.constant(text)? {
                Constant::Text(text) => {
                    text.trim().parse().ok().map(|at: Timestamp| Constant::Moment(at.as_millis()))
                }
                _ => None,
            },
            ("-", [value]) => match self.constant(value)? {
                Constant::Number(n) => n.checked_neg().map(Constant::Number),
                Constant::Span(span) => span.checked_neg().map(Constant::Span),
                _ => None,
            },
            ("-", [a, b]) => match (self.constant(a)?, self.constant(b)?) {
                (Constant::Moment(a), Constant::Span(b)) => moment(a.checked_sub(b)?),
                (Constant::Moment(a), Constant::Moment(b)) | (Constant::Span(a), Constant::Span(b)) => {
                    a.checked_sub(b).map(Constant::Span)
                }
                _ => None,
            },
            ("+", [a, b]) => match (self.constant(a)?, self.constant(b)?) {
                (Constant::Moment(a), Constant::Span(b)) => moment(a.checked_add(b)?),
                (Constant::Span(a), Constant::Span(b)) => a.checked_add(b).map(Constant::Span),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A moment, as the engine's own arithmetic would give it.
fn moment(at: i64) -> Option<Constant> {
    Some(Constant::Moment(Timestamp::from_millis(at).as_millis()))
}

fn unit(name: &str) -> Option<i64> {
    Some(match name {
        "days" => DAY,
        "hours" => HOUR,
        "minutes" => MINUTE,
        "seconds" => SECOND,
        "millis" => 1,
        _ => return None,
    })
}

fn constant_of(value: Dynamic) -> Option<Constant> {
    if let Ok(n) = value.as_int() {
        return Some(Constant::Number(n));
    }
    if let Some(span) = value.read_lock::<Span>() {
        return Some(Constant::Span(span.0));
    }
    if let Some(moment) = value.read_lock::<Moment>() {
        return Some(Constant::Moment(moment.0.as_millis()));
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Some(Constant::Text(text.clone()));
    }
    if let Some(array) = value.read_lock::<Array>() {
        let texts = array.iter().map(|text| text.read_lock::<ImmutableString>().map(|text| text.to_string()));
        return texts.collect::<Option<_>>().map(Constant::Texts);
    }
    value.read_lock::<Map>().map(|map| Constant::Map(map.clone()))
}

fn is_text(field: Field) -> bool {
    matches!(field.kind(), Kind::Text | Kind::Status)
}

/// A comparison of things of one sort; others are the engine's, which says what is wrong with them.
fn compare(field: Field, relation: Relation, with: Constant) -> Option<Condition> {
    match (field.kind(), with) {
        (Kind::Number, Constant::Number(n)) | (Kind::Duration, Constant::Span(n)) => {
            Some(Condition::Number(field, relation, n))
        }
        (Kind::Time, Constant::Moment(at)) if matches!(field, Field::CreatedAt | Field::LastActivityAt) => {
            Some(Condition::Number(field, relation, at))
        }
        (Kind::Text | Kind::Status, Constant::Text(text)) => {
            Some(Condition::Text(field, relation, text.to_string()))
        }
        _ => None,
    }
}
