//! The `spiffe-authz` command.

fn main() {}
