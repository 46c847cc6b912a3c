//! Medians and quantiles of measurements.

use std::time::Duration;

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Returns the median.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which this share of the values lies. There must be at least one value.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    quantiles(values, [share])[0]
}

/// Returns the values of [`quantile`] for each share.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
pub(crate) fn quantiles<const N: usize>(values: &[f64], shares: [f64; N]) -> [f64; N] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    shares.map(|share| sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)])
}

/// Returns the median, and the middle half of the values.
pub(crate) fn spread(values: &[f64]) -> String {
    let [low, middle, high] = quantiles(values, [0.25, 0.5, 0.75]);
    format!("{middle:.1} ({low:.1} to {high:.1})")
}

/// Returns the median of `compare` over the rounds.
pub(crate) fn compared(ones: &[f64], others: &[f64], compare: impl Fn(f64, f64) -> f64) -> f64 {
    let of_rounds: Vec<f64> = ones.iter().zip(others).map(|(one, other)| compare(*one, *other)).collect();
    median(&of_rounds)
}
