//! Whether every function that a script calls exists: told before the script runs, so that nothing is half done.

use std::collections::HashSet;

use rhai::{AST, ASTNode, Engine, EvalAltResult, Expr, FnCallExpr, ImmutableString, Map, Position, Stmt};

use super::failure::Failure;
use super::suggestion;

/// What the engine answers itself, without a registered function.
const BUILT_IN: [&str; 10] =
    ["Fn", "call", "curry", "debug", "is_def_fn", "is_def_var", "is_shared", "print", "this", "type_of"];

/// The first call, in the order of the text, of a function that doesn't exist.
pub fn unknown_function(engine: &Engine, ast: &AST) -> Result<(), Box<EvalAltResult>> {
    let mut calls: Vec<(ImmutableString, Position)> = Vec::new();
    let mut methods: Vec<(ImmutableString, Position)> = Vec::new();
    // A map's value may be a function, and is then called like a method.
    let mut keys: HashSet<ImmutableString> = HashSet::new();
    let mut imports = false;
    ast.walk(&mut |path| {
        match path.last() {
            Some(
                ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position)),
            ) if is_ours(call) => calls.push((call.name.clone(), *position)),
            Some(ASTNode::Expr(Expr::MethodCall(call, position))) if is_ours(call) => {
                methods.push((call.name.clone(), *position));
            }
            Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) => {
                if let Some(map) = value.read_lock::<Map>() {
                    keys.extend(map.keys().map(|key| key.as_str().into()));
                }
            }
            Some(ASTNode::Expr(Expr::Map(map, _))) => {
                keys.extend(map.0.iter().map(|(key, _)| key.name.clone()));
            }
            Some(ASTNode::Expr(Expr::Property(property, _))) => {
                keys.insert(property.2.clone());
            }
            Some(ASTNode::Expr(Expr::StringConstant(text, _))) => {
                keys.insert(text.clone());
            }
            Some(ASTNode::Stmt(Stmt::Import(..))) => imports = true,
            _ => {}
        }
        true
    });
    // A module may give maps of functions.
    if !imports {
        calls.append(&mut methods);
    }
    if calls.is_empty() {
        return Ok(());
    }
    let known = engine.collect_fn_metadata(None, |info| Some(info.metadata.name.to_string()), true);
    let mut known: HashSet<&str> = known.iter().map(String::as_str).collect();
    known.extend(BUILT_IN);
    let own: Vec<String> = ast.iter_functions().map(|function| function.name.to_string()).collect();
    known.extend(own.iter().map(String::as_str));
    let unknown =
        calls.into_iter().filter(|(name, _)| !known.contains(name.as_str()) && !keys.contains(name));
    match unknown.min_by_key(|(_, position)| (position.line(), position.position())) {
        None => Ok(()),
        Some((name, position)) => {
            let message = format!("there is no function `{name}`");
            let names = known.iter().copied().filter(|name| !name.contains('$'));
            let hint = suggestion::did_you_mean(&name, names);
            Err(Failure::Script { message, hint }.at_position(position))
        }
    }
}

/// Not an operator, and not of a module that the script imports.
fn is_ours(call: &FnCallExpr) -> bool {
    call.op_token.is_none()
        && call.name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && (call.namespace.is_empty() || matches!(call.namespace.root(), "agents" | "fixture" | "sessions"))
}
