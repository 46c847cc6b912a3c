//! The targets of the measurements.

/// A target, with its measurement.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) limit: Limit,
    pub(crate) unit: &'static str,
    pub(crate) measured: f64,
}

/// The limit of a measurement.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// Prints a table of the targets, and whether each is met.
pub(crate) fn print(targets: &[Target]) {
    println!("\n| Target | Limit | Measured | |\n|---|---|---|---|");
    for Target { name, limit, unit, measured } in targets {
        let (sign, limit, met) = match limit {
            Limit::AtMost(limit) => ("≤", limit, measured <= limit),
            Limit::AtLeast(limit) => ("≥", limit, measured >= limit),
        };
        println!("| {name} | {sign} {limit}{unit} | {measured:.2}{unit} | {} |", if met { "met" } else { "missed" });
    }
}
