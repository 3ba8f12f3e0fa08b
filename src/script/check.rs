//! What can be told of a script without running it: names that nobody knows, calls with too few or too many values,
//! fields that a value of that kind doesn't have. Told before anything runs, so that nothing is half done.
//!
//! It says only what is certain: a value whose kind isn't plain from the text is taken to have every field.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rhai::{
    AST, ASTNode, Dynamic, Engine, Expr, FnAccess, FnCallExpr, FnPtr, ImmutableString, Map, Namespace,
    Position, Scope, Stmt, StmtBlock,
};

use super::completeness;
use super::diagnostic;
use super::failure::Failure;
use super::functions;
use super::resolver::{Prepared, Sources};
use super::suggestion;
use super::types::Type;

/// What the engine answers itself, without a registered function.
const BUILT_IN: [&str; 10] =
    ["Fn", "call", "curry", "debug", "is_def_fn", "is_def_var", "is_shared", "print", "this", "type_of"];

/// The modules that are there without being imported.
const MODULES: [&str; 4] = ["agents", "fixture", "secrets", "sessions"];

/// Methods of lists that call a function with one element.
const OF_AN_ELEMENT: [&str; 17] = [
    "all",
    "any",
    "avg",
    "count",
    "count_by",
    "each",
    "filter",
    "find",
    "group_by",
    "map",
    "max",
    "min",
    "reject",
    "sort_by",
    "sum",
    "take_while",
    "unique",
];

/// Something that is wrong in a script.
#[derive(Debug)]
pub struct Finding {
    /// The script's name.
    pub source: String,
    pub position: Position,
    pub failure: Failure,
}

/// How thorough to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What surely goes wrong: a module that can't be read counts only where every run imports it.
    BeforeRun,
    /// Everything that can be told.
    Whole,
}

/// Everything that can be told of a compiled script and of the modules that it imports, in the order of the text. The
/// script must have been compiled without strict variables.
///
/// `scope` holds what the script is given, `before` the functions and imports of earlier lines.
pub fn findings(
    engine: &Engine,
    sources: &Sources,
    ast: &AST,
    scope: Option<&Scope>,
    before: Option<&AST>,
    depth: Depth,
) -> Vec<Finding> {
    let mut all = All { engine, sources, depth, seen: HashSet::new(), found: Vec::new() };
    all.of_text(ast, scope, before);
    all.found
}

/// The findings in a script and in its modules.
struct All<'a> {
    engine: &'a Engine,
    sources: &'a Sources,
    depth: Depth,
    seen: HashSet<String>,
    found: Vec<Finding>,
}

impl All<'_> {
    fn of_text(&mut self, ast: &AST, scope: Option<&Scope>, before: Option<&AST>) {
        let name = ast.source().unwrap_or_default().to_owned();
        self.seen.insert(name.clone());
        let open = self.sources.with_text(&name, completeness::open_comment).flatten();
        let open = open.map(|(line, column)| Finding {
            source: name.clone(),
            position: position(line, column),
            failure: Failure::hinted("a comment is not closed", "It begins with /* and ends with */."),
        });
        let used = Used::of(ast);
        if used.is_empty() {
            self.found.extend(open);
            return;
        }
        let mut walker = Walker {
            engine: self.engine,
            sources: self.sources,
            name: &name,
            depth: self.depth,
            table: Table::of(self.engine, &used.names),
            functions: functions_of(ast),
            closures: HashMap::new(),
            used: &used,
            scope,
            variables: Vec::new(),
            modules: Vec::new(),
            imported: Vec::new(),
            is_global: false,
            found: Vec::new(),
        };
        if let Some(before) = before {
            for (name, counts) in functions_of(before) {
                walker.functions.entry(name).or_default().extend(counts);
            }
            for statement in before.statements() {
                walker.statement(statement);
            }
            walker.found.clear();
        }
        walker.found.extend(open);
        walker.is_global = true;
        walker.script(ast);
        let Walker { found: mut own, imported, .. } = walker;
        own.sort_by_key(|finding| (finding.position.line(), finding.position.position()));
        own.dedup_by_key(|finding| finding.position);
        self.found.append(&mut own);
        for module in imported {
            if !self.seen.contains(&module.name) {
                self.of_text(&module.ast, None, None);
            }
        }
    }
}

fn position(line: usize, column: usize) -> Position {
    let fit = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    Position::new(fit(line.max(1)), fit(column))
}

fn is_closure(name: &str) -> bool {
    name.starts_with("anon$")
}

/// The script's own functions: how many values each takes.
fn functions_of(ast: &AST) -> HashMap<String, Vec<usize>> {
    let mut functions: HashMap<String, Vec<usize>> = HashMap::new();
    for function in ast.iter_functions() {
        functions.entry(function.name.to_string()).or_default().push(function.params.len());
    }
    functions
}

/// The names that a text says, collected first, so that only what they mean is looked up.
#[derive(Default)]
struct Used {
    /// Of functions, methods and getters (`get$name`).
    names: HashSet<String>,
    /// A map's value may be a function, and is then called like a method.
    keys: HashSet<ImmutableString>,
    /// Variables that are given another value somewhere: of which kind, nobody can tell.
    assigned: HashSet<ImmutableString>,
    has_variables: bool,
    has_imports: bool,
}

impl Used {
    fn of(ast: &AST) -> Self {
        let mut used = Self::default();
        ast.walk(&mut |path| {
            match path.last() {
                Some(
                    ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _))
                    | ASTNode::Stmt(Stmt::FnCall(call, _)),
                ) if call.op_token.is_none() => {
                    used.names.insert(call.name.to_string());
                }
                Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) => {
                    if let Some(map) = value.read_lock::<Map>() {
                        used.keys.extend(map.keys().map(|key| key.as_str().into()));
                    }
                }
                Some(ASTNode::Expr(Expr::Map(map, _))) => {
                    used.keys.extend(map.0.iter().map(|(key, _)| key.name.clone()));
                }
                Some(ASTNode::Expr(Expr::Property(property, _))) => {
                    used.names.insert(property.0.0.to_string());
                    used.keys.insert(property.2.clone());
                }
                Some(ASTNode::Expr(Expr::StringConstant(text, _))) => {
                    used.keys.insert(text.clone());
                }
                Some(ASTNode::Expr(Expr::Variable(..))) => used.has_variables = true,
                Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => {
                    if let Some(name) = root_variable(&assignment.1.lhs) {
                        used.assigned.insert(name);
                    }
                }
                Some(ASTNode::Stmt(Stmt::Import(..))) => used.has_imports = true,
                _ => {}
            }
            true
        });
        used
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.has_variables && !self.has_imports
    }
}

/// The variable that an assignment changes, or whose part it changes.
fn root_variable(expression: &Expr) -> Option<ImmutableString> {
    match expression {
        Expr::Variable(variable, ..) => Some(variable.1.clone()),
        Expr::Dot(parts, ..) | Expr::Index(parts, ..) => root_variable(&parts.lhs),
        _ => None,
    }
}

/// One way to call a native function.
struct Form {
    parameters: Vec<TypeId>,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Type(Type),
    /// Of the kind of the first value.
    Same,
}

impl Form {
    fn takes_first(&self, kind: Type) -> bool {
        self.parameters.first().is_some_and(|first| kind.is_taken_as(*first))
    }
}

/// The native functions of some names: global ones under "", those of a module under its name.
struct Table(HashMap<(String, String), Vec<Form>>);

impl Table {
    fn of(engine: &Engine, names: &HashSet<String>) -> Self {
        let mut forms: HashMap<(String, String), Vec<Form>> = HashMap::new();
        let read = |info: rhai::FuncInfo<'_>| {
            let name = info.metadata.name.as_str();
            if !names.contains(name) {
                return None;
            }
            let answer = functions::plain_type(&info.metadata.return_type);
            let form = Form {
                parameters: info.metadata.param_types.to_vec(),
                answer: if answer == "List" {
                    Some(Answer::Same)
                } else {
                    Type::named(&answer).map(Answer::Type)
                },
            };
            Some(((info.namespace.to_string(), name.to_owned()), form))
        };
        for (key, form) in engine.collect_fn_metadata(None, read, true) {
            forms.entry(key).or_default().push(form);
        }
        Self(forms)
    }

    fn forms(&self, module: &str, name: &str) -> &[Form] {
        self.0.get(&(module.to_owned(), name.to_owned())).map_or(&[], Vec::as_slice)
    }
}

/// The kind that all of these forms answer.
fn answer<'f>(forms: impl Iterator<Item = &'f Form>, first: Option<Type>) -> Option<Type> {
    let mut kinds = forms.map(|form| match form.answer? {
        Answer::Type(kind) => Some(kind),
        Answer::Same => first,
    });
    let one = kinds.next()??;
    kinds.all(|kind| kind == Some(one)).then_some(one)
}

struct Walker<'a> {
    engine: &'a Engine,
    sources: &'a Sources,
    name: &'a str,
    depth: Depth,
    table: Table,
    functions: HashMap<String, Vec<usize>>,
    /// The body and the parameters of each closure, by its name.
    closures: HashMap<ImmutableString, (AST, Vec<ImmutableString>)>,
    used: &'a Used,
    /// What the script is given; `None` in a module.
    scope: Option<&'a Scope<'a>>,
    /// The variables in sight, the latest last, and of which kind they are.
    variables: Vec<(ImmutableString, Option<Type>)>,
    /// The modules in sight, the latest last; `None` if nobody can say what is in it.
    modules: Vec<(ImmutableString, Option<Rc<Prepared>>)>,
    imported: Vec<Rc<Prepared>>,
    /// Whether every run comes by here.
    is_global: bool,
    found: Vec<Finding>,
}

impl Walker<'_> {
    fn tell(&mut self, position: Position, failure: Failure) {
        self.found.push(Finding { source: self.name.to_owned(), position, failure });
    }

    /// The whole text, its functions last.
    fn script(&mut self, ast: &AST) {
        // The engine keeps all functions where it adds the first to none, and so something must be there.
        let Ok(none) = self.engine.compile("fn none() { }") else { return };
        let functions = ast.clone_functions_only();
        let one = |name: &ImmutableString, count: usize| {
            none.merge_filtered(&functions, |_, _, _, other, n| other == name.as_str() && n == count)
        };
        for function in ast.iter_fn_def().filter(|function| is_closure(&function.name)) {
            let single = one(&function.name, function.params.len());
            self.closures.insert(function.name.clone(), (single, function.params.to_vec()));
        }
        for statement in ast.statements() {
            self.statement(statement);
        }
        self.is_global = false;
        for function in ast.iter_fn_def().filter(|function| !is_closure(&function.name)) {
            // A function sees the script's modules, and none of its variables.
            self.variables = function.params.iter().map(|name| (name.clone(), None)).collect();
            self.body(&one(&function.name, function.params.len()));
        }
    }

    fn block(&mut self, block: &StmtBlock) {
        let (variables, modules) = (self.variables.len(), self.modules.len());
        let was_global = std::mem::replace(&mut self.is_global, false);
        for statement in block.statements() {
            self.statement(statement);
        }
        self.is_global = was_global;
        self.variables.truncate(variables);
        self.modules.truncate(modules);
    }

    /// The body of the one function that this holds.
    fn body(&mut self, single: &AST) {
        // The engine shows a function's body only to those who walk over all of it.
        single.walk(&mut |path| {
            if let [ASTNode::Stmt(statement)] = path {
                self.statement(statement);
            }
            true
        });
    }

    fn with_variables(
        &mut self,
        variables: impl IntoIterator<Item = (ImmutableString, Option<Type>)>,
        work: impl FnOnce(&mut Self),
    ) {
        let count = self.variables.len();
        self.variables.extend(variables);
        work(self);
        self.variables.truncate(count);
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::If(flow, _) | Stmt::While(flow, _) => {
                self.expression(&flow.expr);
                self.block(&flow.body);
                self.block(&flow.branch);
            }
            Stmt::Do(flow, ..) => {
                self.block(&flow.body);
                self.expression(&flow.expr);
            }
            Stmt::For(parts, _) => {
                let (variable, counter, flow) = &**parts;
                let of = self.expression(&flow.expr);
                let counter = counter.iter().map(|counter| (counter.name.clone(), Some(Type::Int)));
                let element = self.unless_assigned(&variable.name, of.and_then(Type::element));
                let variables: Vec<_> = counter.chain([(variable.name.clone(), element)]).collect();
                self.with_variables(variables, |walker| walker.block(&flow.body));
            }
            Stmt::Switch(parts, _) => {
                self.expression(&parts.0);
                for case in &parts.1.expressions {
                    self.expression(&case.lhs);
                    self.expression(&case.rhs);
                }
            }
            Stmt::Var(parts, ..) => {
                let (variable, value, _) = &**parts;
                let kind = self.expression(value);
                let kind = self.unless_assigned(&variable.name, kind);
                self.variables.push((variable.name.clone(), kind));
            }
            Stmt::Assignment(parts) => {
                self.expression(&parts.1.rhs);
                self.expression(&parts.1.lhs);
            }
            Stmt::FnCall(call, position) => {
                self.call(call, *position);
            }
            Stmt::Block(block) => self.block(block),
            Stmt::TryCatch(flow, _) => {
                self.block(&flow.body);
                let caught = match &flow.expr {
                    Expr::Variable(variable, ..) => Some((variable.1.clone(), None)),
                    _ => None,
                };
                self.with_variables(caught, |walker| walker.block(&flow.branch));
            }
            Stmt::Expr(expression) => {
                self.expression(expression);
            }
            Stmt::BreakLoop(Some(value), ..) | Stmt::Return(Some(value), ..) => {
                self.expression(value);
            }
            Stmt::Import(parts, position) => self.import(&parts.0, &parts.1.name, *position),
            _ => {}
        }
    }

    fn unless_assigned(&self, name: &ImmutableString, kind: Option<Type>) -> Option<Type> {
        kind.filter(|_| !self.used.assigned.contains(name))
    }

    fn import(&mut self, path: &Expr, alias: &ImmutableString, position: Position) {
        self.expression(path);
        let mut module = None;
        if let Expr::StringConstant(path, at) = path {
            match self.sources.prepare(self.engine, Some(self.name), path) {
                Ok(prepared) => module = Some(prepared),
                Err(problem) if self.is_global || self.depth == Depth::Whole => {
                    let at = if at.is_none() { position } else { *at };
                    let (source, position) = problem.place.unwrap_or_else(|| (self.name.to_owned(), at));
                    self.found.push(Finding { source, position, failure: problem.failure });
                }
                Err(_) => {}
            }
        }
        self.imported.extend(module.clone());
        // A module without a name is run and forgotten.
        if !alias.is_empty() {
            self.modules.push((alias.clone(), module));
        }
    }

    /// Looks through an expression; the kind of its value, if that is plain.
    fn expression(&mut self, expression: &Expr) -> Option<Type> {
        if let Some(closure) = Closure::of(expression) {
            self.closure(&closure, None);
            return None;
        }
        match expression {
            Expr::BoolConstant(..) => Some(Type::Bool),
            Expr::IntegerConstant(..) => Some(Type::Int),
            Expr::FloatConstant(..) => Some(Type::Float),
            Expr::CharConstant(..) => Some(Type::Char),
            Expr::StringConstant(..) => Some(Type::Text),
            Expr::DynamicConstant(value, _) => {
                if value.is_array() {
                    Some(Type::Array)
                } else {
                    value.is_map().then_some(Type::Map)
                }
            }
            Expr::InterpolatedString(parts, _) => {
                self.all(parts);
                Some(Type::Text)
            }
            Expr::Array(parts, _) => {
                self.all(parts);
                Some(Type::Array)
            }
            Expr::Map(parts, _) => {
                for (_, value) in &parts.0 {
                    self.expression(value);
                }
                Some(Type::Map)
            }
            Expr::Variable(variable, _, position) => {
                let (index, name, namespace, _) = &**variable;
                self.variable(name, namespace, index.is_some(), *position)
            }
            Expr::Stmt(block) => {
                self.block(block);
                None
            }
            Expr::FnCall(call, position) => self.call(call, *position),
            Expr::Dot(parts, ..) => {
                let of = self.expression(&parts.lhs);
                self.chain(of, &parts.lhs, &parts.rhs)
            }
            Expr::Index(parts, ..) => {
                let of = self.expression(&parts.lhs);
                self.indexed(of, &parts.rhs)
            }
            Expr::And(parts, _) | Expr::Or(parts, _) => {
                self.all(parts.as_ref());
                Some(Type::Bool)
            }
            Expr::Coalesce(parts, _) => {
                self.all(parts.as_ref());
                None
            }
            _ => None,
        }
    }

    fn all(&mut self, parts: &[Expr]) {
        for part in parts {
            self.expression(part);
        }
    }

    /// What stands behind a dot. A chain leans to the right: `a.b.c` is `a` and `b.c`.
    fn chain(&mut self, of: Option<Type>, left: &Expr, right: &Expr) -> Option<Type> {
        match right {
            Expr::Dot(parts, ..) => {
                let of = self.chain(of, left, &parts.lhs);
                self.chain(of, &parts.lhs, &parts.rhs)
            }
            Expr::Index(parts, ..) => {
                let of = self.chain(of, left, &parts.lhs);
                self.indexed(of, &parts.rhs)
            }
            Expr::Property(property, position) => self.property(of, left, &property.2, *position),
            Expr::MethodCall(call, position) => self.method(of, call, *position),
            other => self.expression(other),
        }
    }

    /// What stands in brackets, and behind them.
    fn indexed(&mut self, of: Option<Type>, right: &Expr) -> Option<Type> {
        match right {
            Expr::Dot(parts, ..) => {
                let of = self.indexed(of, &parts.lhs);
                self.chain(of, right, &parts.rhs)
            }
            Expr::Index(parts, ..) => {
                let of = self.indexed(of, &parts.lhs);
                self.indexed(of, &parts.rhs)
            }
            place => {
                let place = self.expression(place);
                of.filter(|_| place == Some(Type::Int)).and_then(Type::element)
            }
        }
    }

    fn variable(
        &mut self,
        name: &ImmutableString,
        namespace: &Namespace,
        is_known: bool,
        position: Position,
    ) -> Option<Type> {
        if !namespace.is_empty() {
            self.module(namespace);
            return None;
        }
        if let Some((_, kind)) = self.variables.iter().rev().find(|(other, _)| other == name) {
            return *kind;
        }
        let is_given = self.scope.is_some_and(|scope| scope.contains(name)) || name == "args";
        if !is_known && !is_given && !self.functions.contains_key(name.as_str()) {
            let near = self.variables.iter().map(|(name, _)| name.as_str()).chain(["args"]);
            let hint = suggestion::did_you_mean(name, near)
                .or_else(|| diagnostic::meant_as_a_function(self.engine, &self.functions, name));
            self.tell(position, Failure::Script { message: format!("there is no variable `{name}`"), hint });
        }
        None
    }

    /// The module that this path begins with; `None` if nobody can say what is in it.
    fn module(&mut self, namespace: &Namespace) -> Option<Rc<Prepared>> {
        let root = namespace.root();
        if let Some((_, module)) = self.modules.iter().rev().find(|(alias, _)| alias == root) {
            return module.clone().filter(|_| namespace.path.len() == 1);
        }
        if !MODULES.contains(&root) && root != "global" {
            let near = self.modules.iter().map(|(alias, _)| alias.as_str()).chain(MODULES);
            let failure = diagnostic::missing_module(root, near);
            self.tell(namespace.position(), failure);
        }
        None
    }

    fn call(&mut self, call: &FnCallExpr, position: Position) -> Option<Type> {
        let kinds: Vec<Option<Type>> = call.args.iter().map(|value| self.expression(value)).collect();
        if call.op_token.is_some() || !is_name(&call.name) {
            return operator(&call.name, &kinds);
        }
        let name = call.name.as_str();
        let module = if call.namespace.is_empty() {
            ""
        } else {
            let prepared = self.module(&call.namespace);
            if let Some(prepared) = prepared {
                self.call_in_module(&prepared, call, position);
                return None;
            }
            match call.namespace.root() {
                root if MODULES.contains(&root)
                    && !self.modules.iter().any(|(alias, _)| alias == root)
                    && call.namespace.path.len() == 1 =>
                {
                    root
                }
                _ => return None,
            }
        };
        if module.is_empty() {
            if BUILT_IN.contains(&name) {
                return None;
            }
            if let Some(counts) = self.functions.get(name) {
                // A name may have both: the script's own go first.
                if !counts.contains(&call.args.len())
                    && !self.table.forms("", name).iter().any(|form| form.parameters.len() == call.args.len())
                {
                    let failure = diagnostic::wrong_count_own(name, counts, call.args.len());
                    self.tell(position, failure);
                }
                return None;
            }
        }
        let forms = self.table.forms(module, name);
        if forms.is_empty() {
            if !(module.is_empty() && self.used.keys.contains(&call.name)) {
                let failure = diagnostic::unknown_function(self.engine, &self.functions, module, name, None);
                self.tell(position, failure);
            }
            return None;
        }
        let fits = |form: &&Form| form.parameters.len() == call.args.len();
        if !forms.iter().any(|form| fits(&form)) {
            let failure = diagnostic::wrong_count(self.engine, module, name, call.args.len());
            self.tell(position, failure);
            return None;
        }
        let first = kinds.first().copied().flatten();
        let of_first =
            |form: &&Form| first.is_none_or(|first| form.parameters.is_empty() || form.takes_first(first));
        answer(forms.iter().filter(fits).filter(of_first), first)
    }

    fn call_in_module(&mut self, module: &Prepared, call: &FnCallExpr, position: Position) {
        let name = call.name.as_str();
        let functions: Vec<_> = module
            .ast
            .iter_functions()
            .filter(|function| function.access == FnAccess::Public && !is_closure(function.name))
            .map(|function| (function.name.to_owned(), function.params.len()))
            .collect();
        let counts: Vec<usize> =
            functions.iter().filter(|(other, _)| other == name).map(|(_, count)| *count).collect();
        if counts.contains(&call.args.len()) {
            return;
        }
        let failure = if counts.is_empty() {
            let whole = format!("{}::{name}", call.namespace.root());
            let names = functions.iter().map(|(name, _)| name.as_str());
            Failure::Script {
                message: format!("there is no function `{whole}`"),
                hint: suggestion::did_you_mean(name, names.clone()).or_else(|| {
                    let mut names: Vec<&str> = names.collect();
                    names.sort_unstable();
                    names.dedup();
                    (!names.is_empty()).then(|| format!("The module has {}.", names.join(", ")))
                }),
            }
        } else {
            diagnostic::wrong_count_own(name, &counts, call.args.len())
        };
        self.tell(position, failure);
    }

    fn method(&mut self, of: Option<Type>, call: &FnCallExpr, position: Position) -> Option<Type> {
        let name = call.name.as_str();
        let element = of.and_then(Type::element).filter(|_| OF_AN_ELEMENT.contains(&name));
        for value in &call.args {
            match Closure::of(value) {
                Some(closure) => self.closure(&closure, element),
                None => {
                    self.expression(value);
                }
            }
        }
        if BUILT_IN.contains(&name) || self.functions.contains_key(name) {
            return None;
        }
        let count = call.args.len() + 1;
        let forms = self.table.forms("", name);
        let Some(of) = of.filter(|of| *of != Type::Map) else {
            // A module may give maps of functions.
            if self.used.keys.contains(&call.name) || (forms.is_empty() && self.used.has_imports) {
                return None;
            }
            if forms.is_empty() {
                let failure = diagnostic::unknown_function(self.engine, &self.functions, "", name, None);
                self.tell(position, failure);
            } else if !forms.iter().any(|form| form.parameters.len() == count) {
                let failure = diagnostic::wrong_count(self.engine, "", name, call.args.len());
                self.tell(position, failure);
            }
            return None;
        };
        let mut own = forms.iter().filter(|form| form.takes_first(of)).peekable();
        if own.peek().is_none() {
            let failure = diagnostic::unknown_function(self.engine, &self.functions, "", name, Some(of));
            self.tell(position, failure);
            return None;
        }
        let fitting: Vec<&Form> = own.filter(|form| form.parameters.len() == count).collect();
        if fitting.is_empty() {
            let failure = diagnostic::wrong_count(self.engine, "", name, call.args.len());
            self.tell(position, failure);
            return None;
        }
        // What becomes of a stream's elements is nobody's guess.
        if of == Type::Stream && name == "map" {
            return None;
        }
        answer(fitting.into_iter(), Some(of))
    }

    fn property(
        &mut self,
        of: Option<Type>,
        left: &Expr,
        name: &ImmutableString,
        position: Position,
    ) -> Option<Type> {
        let Some(of) = of else {
            self.argument(left, name, position);
            return None;
        };
        if of == Type::Map {
            return None;
        }
        let getters = self.table.forms("", &format!("get${name}"));
        let own: Vec<&Form> = getters.iter().filter(|form| form.takes_first(of)).collect();
        if own.is_empty() {
            let failure = diagnostic::missing_field(self.engine, name, of.name());
            self.tell(position, failure);
            return None;
        }
        answer(own.into_iter(), Some(of))
    }

    /// `args.name` of a script that declares its arguments.
    fn argument(&mut self, left: &Expr, name: &ImmutableString, position: Position) {
        let Expr::Variable(variable, ..) = left else { return };
        if variable.1 != "args"
            || self.used.assigned.contains("args")
            || self.variables.iter().any(|(other, _)| other == "args")
        {
            return;
        }
        let args = self.scope.and_then(|scope| scope.get("args"));
        let Some(args) = args.and_then(Dynamic::read_lock::<Map>) else { return };
        if args.contains_key(name.as_str()) {
            return;
        }
        let hint = suggestion::did_you_mean(name, args.keys().map(|key| key.as_str()))
            .unwrap_or_else(|| format!("Declare it in the header: //! @option {name} <VALUE>  What it is"));
        let failure = Failure::hinted(format!("`args` has no `{name}`"), hint);
        drop(args);
        self.tell(position, failure);
    }

    /// The body of a closure, where it stands; `element` is the kind of its first own parameter.
    fn closure(&mut self, closure: &Closure, element: Option<Type>) {
        for variable in &closure.captured {
            self.expression(variable);
        }
        let Some((single, parameters)) = self.closures.remove(&closure.name) else { return };
        // Those that it captures come first, under their own names: they are in sight already.
        let own: Vec<_> = parameters
            .iter()
            .skip(closure.captured.len())
            .enumerate()
            .map(|(place, name)| (name.clone(), self.unless_assigned(name, element.filter(|_| place == 0))))
            .collect();
        let was_global = std::mem::replace(&mut self.is_global, false);
        self.with_variables(own, |walker| walker.body(&single));
        self.is_global = was_global;
        self.closures.insert(closure.name.clone(), (single, parameters));
    }
}

/// A closure as it stands in a text.
struct Closure {
    name: ImmutableString,
    /// The variables around it that it uses.
    captured: Vec<Expr>,
}

impl Closure {
    /// The closure that an expression is, if it is one: a constant, or a block that captures variables for one.
    fn of(expression: &Expr) -> Option<Self> {
        match expression {
            Expr::DynamicConstant(value, _) => Self::constant(value, &[]),
            Expr::Stmt(block) => match block.statements() {
                [Stmt::Share(_), Stmt::Expr(call)] => match &**call {
                    Expr::FnCall(call, _) => Self::curried(call),
                    _ => None,
                },
                [Stmt::Share(_), Stmt::FnCall(call, _)] => Self::curried(call),
                _ => None,
            },
            _ => None,
        }
    }

    fn curried(call: &FnCallExpr) -> Option<Self> {
        let (first, captured) = call.args.split_first()?;
        match first {
            Expr::DynamicConstant(value, _) if call.name == "curry" => Self::constant(value, captured),
            _ => None,
        }
    }

    fn constant(value: &Dynamic, captured: &[Expr]) -> Option<Self> {
        let function = value.read_lock::<FnPtr>()?;
        Some(Self { name: function.fn_name().into(), captured: captured.to_vec() })
    }
}

/// Not an operator.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The kind that an operator gives, where that is plain.
fn operator(name: &str, kinds: &[Option<Type>]) -> Option<Type> {
    match (name, kinds) {
        ("==" | "!=" | "<" | "<=" | ">" | ">=" | "!", _) => Some(Type::Bool),
        ("+", [Some(Type::Text), _]) => Some(Type::Text),
        ("+" | "-" | "*" | "/" | "%", [Some(Type::Int), Some(Type::Int)]) | ("-", [Some(Type::Int)]) => {
            Some(Type::Int)
        }
        _ => None,
    }
}
