//! Policies: the document as written, and what it compiles to.

pub mod document;
mod node;
mod pointer;
mod reader;
