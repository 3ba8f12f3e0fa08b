//! What scripts can call, as documentation.

/// One function, getter or operator that scripts can call, from the same text that documents it in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDoc {
    /// `end`, or `idle` of a getter.
    pub name: String,
    /// `sessions` of `sessions::list`; empty for global functions and methods.
    pub module: String,
    /// As it is written: `list(options: Map) -> Sessions`.
    pub signature: String,
    /// Markdown, without the comment's slashes.
    pub doc: String,
    /// The text of each block marked `rhai`.
    pub examples: Vec<String>,
}
