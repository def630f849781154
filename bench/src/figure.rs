//! One measured number with what it is held against.

use std::time::Duration;

use serde::Serialize;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A rate.
    Higher,
    /// A time or a size.
    Lower,
}

/// One measured number.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// `W1` …
    pub workload: &'static str,
    /// Which part of it.
    pub case: String,
    /// The number, in `unit`.
    pub figure: f64,
    /// `rows/s`, `ms` …
    pub unit: &'static str,
    /// The same from the machine alone, in the same run.
    pub limit: Option<f64>,
    /// `figure` through `limit`.
    pub ratio: Option<f64>,
    /// What is wanted of the ratio, or of the figure where there is no limit.
    pub target: f64,
    /// Which way is good.
    pub better: Better,
}

impl Figure {
    /// A rate that should be at least `target` times `limit`.
    pub(crate) fn rate(
        workload: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        figure: f64,
        limit: f64,
        target: f64,
    ) -> Self {
        Self {
            workload,
            case: case.into(),
            figure,
            unit,
            limit: Some(limit),
            ratio: Some(figure / limit),
            target,
            better: Better::Higher,
        }
    }

    /// A number with a target of its own, and no limit beside it.
    pub(crate) fn plain(
        workload: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        figure: f64,
        target: f64,
        better: Better,
    ) -> Self {
        Self {
            workload,
            case: case.into(),
            figure,
            unit,
            limit: None,
            ratio: None,
            target,
            better,
        }
    }

    /// A cost that should be at most `target` times `limit`.
    pub(crate) fn cost(
        workload: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        figure: f64,
        limit: f64,
        target: f64,
    ) -> Self {
        Self {
            better: Better::Lower,
            ..Self::rate(workload, case, unit, figure, limit, target)
        }
    }

    /// Whether the target is reached.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        let measured = self.ratio.unwrap_or(self.figure);
        match self.better {
            Better::Higher => measured >= self.target,
            Better::Lower => measured <= self.target,
        }
    }
}

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The value at this part of the sorted samples, 0.5 being the median; in milliseconds.
pub(crate) fn percentile_ms(samples: &mut [Duration], part: f64) -> f64 {
    samples.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a few thousand samples"
    )]
    let at = ((samples.len() - 1) as f64 * part).round() as usize;
    samples
        .get(at)
        .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
}
