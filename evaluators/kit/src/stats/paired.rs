//! Two arms over the same examples: is the difference real, how large is it, and was there enough to see it?
//!
//! | question | answer |
//! |---|---|
//! | scores: how large | mean of b - a, with a BCa bootstrap interval (Efron 1987), from a fixed seed |
//! | scores: is it real | Wilcoxon's signed ranks (1945): exact up to 25 differences without ties, else normal with tie correction |
//! | passed or not: is it real | McNemar's exact test (binomial over the discordant pairs) |
//! | several metrics and variants | Holm (1979) |
//! | was there enough | power and sample size of the paired mean, normal approximation |
//! | may I look while it runs | an asymptotic confidence sequence (Waudby-Smith et al. 2021): valid at every look |
//!
//! An example that failed in either arm is in neither: pairs come from the caller, who counts what is missing.
//! Kept by: `tests/it/references.rs` (scipy, statsmodels), `tests/it/stats.rs` (coverage by simulation).

use serde::Serialize;

use super::special::{normal_cdf, normal_quantile, normal_sf, t_two_sided};
use super::summary::{Interval, deviation, mean, quantile, student};

/// b - a, example by example.
pub fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| b - a).collect()
}

/// The two-sided p of Wilcoxon's signed-rank test; zeros are dropped. 1 when nothing is left.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let mut kept: Vec<f64> = differences.iter().copied().filter(|value| *value != 0.0 && value.is_finite()).collect();
    if kept.is_empty() {
        return 1.0;
    }
    kept.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = kept.len();
    let (mut rank_plus, mut ties) = (0.0, 0.0);
    let mut at = 0;
    while at < n {
        let tied = kept[at..].iter().take_while(|value| value.abs() == kept[at].abs()).count();
        // Ranks count from 1; tied values share their mean.
        let rank = at as f64 + (tied as f64 + 1.0) / 2.0;
        rank_plus += rank * kept[at..at + tied].iter().filter(|value| **value > 0.0).count() as f64;
        ties += (tied as f64).powi(3) - tied as f64;
        at += tied;
    }
    if n <= 25 && ties == 0.0 {
        return exact_ranks(n, rank_plus as usize);
    }
    let n = n as f64;
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
    (2.0 * normal_sf(((rank_plus - n * (n + 1.0) / 4.0) / variance.sqrt()).abs())).min(1.0)
}

/// How many of the 2^n signs give a rank sum, counted; n is at most 25.
fn exact_ranks(n: usize, rank_plus: usize) -> f64 {
    let most = n * (n + 1) / 2;
    let mut ways = vec![0.0_f64; most + 1];
    ways[0] = 1.0;
    for rank in 1..=n {
        for sum in (rank..=most).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let all = 2_f64.powi(n as i32);
    let rank_plus = rank_plus.min(most);
    let below = ways[..=rank_plus].iter().sum::<f64>() / all;
    let above = ways[rank_plus..].iter().sum::<f64>() / all;
    (2.0 * f64::min(below, above)).min(1.0)
}

/// The two-sided p of the paired t-test; `None` of fewer than two, or when all differences are the same.
pub fn paired_t(differences: &[f64]) -> Option<f64> {
    let (mean, deviation) = (mean(differences)?, deviation(differences)?);
    let n = differences.len() as f64;
    (deviation > 0.0).then(|| t_two_sided(mean / (deviation / n.sqrt()), n - 1.0))
}

/// The two-sided p of McNemar's exact test: examples that only a passed, and that only b passed.
pub fn mcnemar(only_a: u64, only_b: u64) -> f64 {
    let n = only_a.saturating_add(only_b);
    // Past a million discordant pairs the normal distribution is the same to nine digits.
    if n > 1_000_000 {
        return 2.0 * normal_sf(((only_a as f64 - only_b as f64).abs() - 1.0).max(0.0) / (n as f64).sqrt());
    }
    // From the term of the tail's end outwards, in logarithms: 2^-n alone would underflow.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=only_a.min(only_b) {
        sum += term.exp();
        term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// Holm's adjusted p-values, in the order of the given ones.
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|a, b| ps[*a].total_cmp(&ps[*b]));
    let mut adjusted = vec![1.0; ps.len()];
    let mut least = 0.0_f64;
    for (at, &which) in order.iter().enumerate() {
        least = least.max(ps[which] * (ps.len() - at) as f64).min(1.0);
        adjusted[which] = least;
    }
    adjusted
}

/// Resamples of the bootstrap; fewer when there are so many examples that it would take long.
const RESAMPLES: usize = 10_000;
const DRAWS_MAX: usize = 100_000_000;
/// With more, the mean is as good as normal, and Student's interval the same to the digits that are shown.
const BOOTSTRAP_VALUES_MAX: usize = 100_000;
/// So that the same results give the same interval on every machine.
const SEED: u64 = 0x656d_6265_7264;

/// The BCa bootstrap interval of the mean; `None` of fewer than two values. The same values give the same interval. Of more than 100 000
/// values: Student's.
pub fn bootstrap(values: &[f64], level: f64) -> Option<Interval> {
    let n = values.len();
    let observed = mean(values)?;
    if n < 2 {
        return None;
    }
    if values.iter().all(|value| *value == values[0]) {
        return Some(Interval { low: observed, high: observed });
    }
    if n > BOOTSTRAP_VALUES_MAX {
        return student(values, level);
    }
    let mut random = Random(SEED);
    let resamples = (DRAWS_MAX / n).min(RESAMPLES);
    let mut means: Vec<f64> =
        (0..resamples).map(|_| (0..n).map(|_| values[random.below(n)]).sum::<f64>() / n as f64).collect();
    means.sort_unstable_by(f64::total_cmp);

    // Bias: how far the observed mean is from the median of the resampled ones; ties count half.
    let below = means.iter().filter(|mean| **mean < observed).count() as f64;
    let equal = means.iter().filter(|mean| **mean == observed).count() as f64;
    let share = ((below + equal / 2.0) / resamples as f64).clamp(1e-6, 1.0 - 1e-6);
    let bias = normal_quantile(share);
    // Acceleration, by the jackknife; for a mean it is a function of the third moment.
    let (squares, cubes) = values.iter().fold((0.0, 0.0), |(squares, cubes), value| {
        let off = value - observed;
        (squares + off.powi(2), cubes + off.powi(3))
    });
    let acceleration = cubes / (6.0 * f64::powf(squares, 1.5));
    let end = |z: f64| {
        let moved = bias + (bias + z) / (1.0 - acceleration * (bias + z));
        quantile(&means, normal_cdf(moved))
    };
    let z = normal_quantile(0.5 + level / 2.0);
    Some(Interval { low: end(-z)?, high: end(z)? })
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for drawing indexes, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; the bias of the multiplication is under 2^-32 for n under 2^32.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// The chance to see a true mean difference of `effect` with n pairs whose differences deviate by `sd`, at this level (two-sided).
pub fn power(effect: f64, sd: f64, n: f64, level: f64) -> f64 {
    let z = normal_quantile(0.5 + level / 2.0);
    let shift = effect.abs() * n.sqrt() / sd;
    normal_sf(z - shift) + normal_cdf(-z - shift)
}

/// Pairs that are needed to see `effect` with that power; `None` when the effect is 0 or the deviation unknown.
pub fn sample_size(effect: f64, sd: f64, power: f64, level: f64) -> Option<u64> {
    let z = normal_quantile(0.5 + level / 2.0) + normal_quantile(power.clamp(0.01, 0.9999));
    let pairs = (z * sd / effect).powi(2).ceil();
    (pairs.is_finite() && pairs < 1e15).then(|| pairs.max(2.0) as u64)
}

/// An interval that holds the mean difference at all times at once with this level, so that one may look after every example.
///
/// `planned` is the number of pairs at which it is to be tightest. `None` of fewer than two.
pub fn sequence(differences: &[f64], level: f64, planned: u64) -> Option<Interval> {
    let (mean, deviation) = (mean(differences)?, deviation(differences)?);
    let n = differences.len() as f64;
    let alpha = 1.0 - level;
    let log = -2.0 * alpha.ln();
    let rho2 = (log + log.ln_1p() + 1.0) / (planned.max(2) as f64);
    let ahead = n * rho2 + 1.0;
    let half = deviation * (2.0 * ahead / (n * n * rho2) * (ahead.sqrt() / alpha).ln()).sqrt();
    Some(Interval { low: mean - half, high: mean + half })
}

/// What the data say of b against a.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// b has more than a.
    Higher,
    /// b has less than a.
    Lower,
    /// Whatever the difference is, real or not, it is smaller than what was said to matter.
    NoRelevantDifference,
    /// Neither can be said.
    NotEnoughEvidence,
}

/// b against a, over the same examples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Pairs.
    pub pairs: u64,
    /// Mean of b - a.
    pub effect: f64,
    /// Its interval at the asked level.
    pub interval: Interval,
    /// The p of the test.
    pub p: f64,
    /// The same after Holm's correction; set by [`adjust`].
    pub p_adjusted: f64,
    /// The chance that so many pairs had to see `min_effect`.
    pub power: Option<f64>,
    /// Pairs that are needed for a power of 0.8.
    pub pairs_needed: Option<u64>,
    /// The verdict; made again by [`adjust`].
    pub verdict: Verdict,
    min_effect: Option<f64>,
    level: f64,
}

/// Compares two arms; `min_effect` is the smallest difference that matters. `None` of fewer than two pairs, or of arms of unequal length.
///
/// Scores that are all 0 or 1 are tested by McNemar, others by Wilcoxon.
pub fn compare(a: &[f64], b: &[f64], level: f64, min_effect: Option<f64>) -> Option<Comparison> {
    if a.len() != b.len() || a.iter().chain(b).any(|value| !value.is_finite()) {
        return None;
    }
    let level = if level.is_finite() { level.clamp(0.5, 0.999) } else { 0.95 };
    let differences = differences(a, b);
    let interval = bootstrap(&differences, level)?;
    let is_binary = a.iter().chain(b).all(|value| *value == 0.0 || *value == 1.0);
    let p = if is_binary {
        let count = |wanted: f64| differences.iter().filter(|value| **value == wanted).count() as u64;
        mcnemar(count(-1.0), count(1.0))
    } else {
        wilcoxon(&differences)
    };
    let sd = deviation(&differences).filter(|sd| *sd > 0.0);
    let min_effect = min_effect.map(f64::abs).filter(|effect| effect.is_finite() && *effect > 0.0);
    let n = differences.len() as f64;
    let mut comparison = Comparison {
        pairs: differences.len() as u64,
        effect: mean(&differences)?,
        interval,
        p,
        p_adjusted: p,
        power: min_effect.zip(sd).map(|(effect, sd)| power(effect, sd, n, level)),
        pairs_needed: min_effect.zip(sd).and_then(|(effect, sd)| sample_size(effect, sd, 0.8, level)),
        verdict: Verdict::NotEnoughEvidence,
        min_effect,
        level,
    };
    comparison.judge();
    Some(comparison)
}

/// Corrects the comparisons of one experiment (variants times metrics) for their number, and judges them again.
pub fn adjust(comparisons: &mut [Comparison]) {
    let ps: Vec<f64> = comparisons.iter().map(|comparison| comparison.p).collect();
    for (comparison, p) in comparisons.iter_mut().zip(holm(&ps)) {
        comparison.p_adjusted = p;
        comparison.judge();
    }
}

impl Comparison {
    fn judge(&mut self) {
        let Interval { low, high } = self.interval;
        let is_found = self.p_adjusted < 1.0 - self.level;
        self.verdict = if self.min_effect.is_some_and(|effect| low > -effect && high < effect) && self.is_powered() {
            Verdict::NoRelevantDifference
        } else if is_found && self.effect > 0.0 {
            Verdict::Higher
        } else if is_found && self.effect < 0.0 {
            Verdict::Lower
        } else {
            Verdict::NotEnoughEvidence
        };
    }

    /// Enough pairs to have seen it; arms that never differ need no more than a handful to say so, and that is not much.
    fn is_powered(&self) -> bool {
        self.power.map_or(self.pairs >= 30, |power| power >= 0.8)
    }

    /// A sentence for people.
    pub fn conclusion(&self, metric: &str) -> String {
        let Self { pairs, effect, interval: Interval { low, high }, p_adjusted, .. } = self;
        let level = self.level * 100.0;
        let measured =
            format!("{effect:+.4} ({level:.0} % interval {low:+.4} to {high:+.4}, p = {p_adjusted:.4}, {pairs} pairs)");
        match self.verdict {
            Verdict::Higher => format!("{metric} is higher in the variant: {measured}."),
            Verdict::Lower => format!("{metric} is lower in the variant: {measured}."),
            Verdict::NoRelevantDifference => format!("{metric} does not differ by what matters: {measured}."),
            Verdict::NotEnoughEvidence => {
                let needed =
                    self.pairs_needed.map_or(String::new(), |pairs| format!(" About {pairs} pairs are needed."));
                format!("Not enough evidence that {metric} differs: {measured}.{needed}")
            }
        }
    }
}
