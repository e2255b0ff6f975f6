//! Summaries count what they say; intervals cover, tests keep their level: by simulation, from fixed seeds.

use emberd_evaluators_kit::contract::Range;
use emberd_evaluators_kit::stats::paired::{
    Verdict, adjust, bootstrap, compare, mcnemar, power, sample_size, sequence, wilcoxon,
};
use emberd_evaluators_kit::stats::summary::student;
use emberd_evaluators_kit::stats::{Summary, Tally};
use emberd_evaluators_kit::{Class, Cost, Direction, Failure, Outcome, Score};

fn tally(direction: Direction, outcomes: &[Outcome]) -> Summary {
    let mut tally = Tally::new(Range::UNIT, direction);
    for outcome in outcomes {
        tally.outcome("x", outcome);
    }
    tally.summary(0.95)
}

fn scored(value: f64) -> Outcome {
    Ok(vec![Score::number("x", value, Direction::Maximize).label(if value > 0.5 { "good" } else { "bad" })]).into()
}

fn failed(class: Class) -> Outcome {
    Failure::new(class, "").into()
}

/// A failure changes no mean, and is not passed.
#[test]
fn failures_are_counted_and_never_scores() {
    let outcomes =
        [scored(1.0), scored(0.0), scored(1.0), failed(Class::Parse), failed(Class::Parse), failed(Class::Timeout)];
    let summary = tally(Direction::Maximize, &outcomes);
    assert_eq!((summary.scored, summary.errors, summary.of), (3, 3, 6));
    assert_eq!(summary.mean, Some(2.0 / 3.0));
    assert_eq!(summary.pass_rate, Some(2.0 / 6.0), "an example that could not be judged has not passed");
    assert_eq!(summary.errors_by_class, [("parse", 2), ("timeout", 1)].into());
    assert_eq!(summary.labels, [("good".to_owned(), 2), ("bad".to_owned(), 1)].into());
    // The other names of an evaluator with several scores are not this one's.
    let mut other = Tally::new(Range::UNIT, Direction::Maximize);
    other.outcome("y", &scored(1.0));
    assert_eq!(other.summary(0.95).scored, 0);
}

/// 1.0 of a score that is to be small has not passed; a neutral score passes nothing.
#[test]
fn passing_goes_with_the_direction() {
    let outcomes = [scored(1.0), scored(0.0), scored(0.2)];
    assert_eq!(tally(Direction::Maximize, &outcomes).pass_rate, Some(1.0 / 3.0));
    assert_eq!(tally(Direction::Minimize, &outcomes).pass_rate, Some(2.0 / 3.0));
    assert_eq!(tally(Direction::Neutral, &outcomes).pass_rate, None);
}

/// Nothing, one, and all the same: no NaN, no interval out of nothing.
#[test]
fn small_samples_say_little() {
    let none = tally(Direction::Maximize, &[]);
    assert_eq!((none.mean, none.ci_low, none.pass_rate, none.percentiles), (None, None, None, None));
    let one = tally(Direction::Maximize, &[scored(0.7)]);
    assert_eq!((one.mean, one.ci_low, one.sd), (Some(0.7), None, None));
    let same = tally(Direction::Maximize, &[scored(0.7), scored(0.7), scored(0.7)]);
    assert!((same.ci_low.unwrap() - 0.7).abs() < 1e-12);
    let ones = tally(Direction::Maximize, &[scored(1.0), scored(1.0), scored(1.0)]);
    assert!(
        ones.ci_low.unwrap() < 0.5 && ones.ci_high == Some(1.0),
        "three of three is no certainty: {:?}",
        ones.ci_low
    );
    let near = tally(Direction::Maximize, &[scored(0.99), scored(0.5), scored(0.98)]);
    assert!(near.ci_high.unwrap() <= 1.0, "no interval leaves the range");
    assert!(serde_json::to_value(&none).is_ok());
}

#[test]
fn costs_are_summed_up_with_failures() {
    let mut tally = Tally::new(Range::UNIT, Direction::Maximize);
    let cost = |usd| Some(Cost { prompt_tokens: 10, completion_tokens: 2, usd, model: "m".into() });
    tally.outcome("x", &Outcome { cost: cost(Some(0.5)), ..scored(1.0) });
    tally.outcome("x", &Outcome { cost: cost(None), ..failed(Class::Parse) });
    assert_eq!((tally.cost().prompt_tokens, tally.cost().completion_tokens, tally.cost().usd), (20, 4, Some(0.5)));
}

/// SplitMix64, from a seed.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Of many samples, the asked share of intervals holds the truth.
#[test]
fn intervals_cover() {
    let mut random = Random(1);
    let rounds = 400;
    let (mut by_student, mut by_bootstrap) = (0, 0);
    for _ in 0..rounds {
        // Exponential: skewed, mean 1.
        let values: Vec<f64> = (0..60).map(|_| -(1.0 - random.unit()).ln()).collect();
        let holds = |interval: emberd_evaluators_kit::stats::Interval| interval.low <= 1.0 && 1.0 <= interval.high;
        by_student += usize::from(holds(student(&values, 0.95).unwrap()));
        by_bootstrap += usize::from(holds(bootstrap(&values, 0.95).unwrap()));
    }
    // Expected 380 less the price of the skew; three standard deviations are 13.
    assert!((355..=395).contains(&by_student), "student: {by_student} of {rounds}");
    assert!((355..=395).contains(&by_bootstrap), "bootstrap: {by_bootstrap} of {rounds}");
}

/// Without a difference, Wilcoxon and McNemar cry wolf no more often than agreed.
#[test]
fn tests_keep_their_level() {
    let mut random = Random(2);
    let rounds = 2000;
    let (mut by_wilcoxon, mut by_mcnemar) = (0, 0);
    for _ in 0..rounds {
        let differences: Vec<f64> = (0..20).map(|_| random.normal()).collect();
        by_wilcoxon += usize::from(wilcoxon(&differences) < 0.05);
        let only_a = (0..30).filter(|_| random.unit() < 0.5).count() as u64;
        by_mcnemar += usize::from(mcnemar(only_a, 30 - only_a) < 0.05);
    }
    assert!((60..=140).contains(&by_wilcoxon), "wilcoxon: {by_wilcoxon} of {rounds}");
    assert!((20..=140).contains(&by_mcnemar), "mcnemar, which is conservative: {by_mcnemar} of {rounds}");
}

/// Looked at after every example, the sequence leaves the truth in few runs; a fixed interval would in many.
#[test]
fn a_sequence_may_be_watched() {
    let mut random = Random(3);
    let rounds = 200;
    let (mut left_sequence, mut left_fixed) = (0, 0);
    for _ in 0..rounds {
        let values: Vec<f64> = (0..400).map(|_| random.normal()).collect();
        let leaves = |interval: emberd_evaluators_kit::stats::Interval| interval.low > 0.0 || interval.high < 0.0;
        let looks = || (20..=400).step_by(5).map(|n| &values[..n]);
        left_sequence += usize::from(looks().any(|seen| leaves(sequence(seen, 0.95, 200).unwrap())));
        left_fixed += usize::from(looks().any(|seen| leaves(student(seen, 0.95).unwrap())));
    }
    // 5 % of 200 is 10; three standard deviations more are 19.
    assert!(left_sequence <= 19, "the sequence left the truth in {left_sequence} of {rounds} runs");
    assert!(left_fixed > 40, "the fixed interval left it in {left_fixed} only: does this test see anything?");
}

/// The sample size gives the power that it was asked for (G*Power's textbook case: d = 0.5, 80 %, 5 %: 32 by the normal distribution).
#[test]
fn sample_sizes_give_their_power() {
    assert_eq!(sample_size(0.5, 1.0, 0.8, 0.95), Some(32));
    for effect in [0.05, 0.2, 1.0] {
        let n = sample_size(effect, 1.0, 0.8, 0.95).unwrap() as f64;
        assert!(power(effect, 1.0, n, 0.95) >= 0.8);
        assert!(power(effect, 1.0, n - 2.0, 0.95) < 0.8);
    }
    assert_eq!(sample_size(0.0, 1.0, 0.8, 0.95), None);
}

/// Better, worse, the same, and not known are four verdicts.
#[test]
fn verdicts_say_when_they_do_not_know() {
    let mut random = Random(4);
    let mut arms = |n: usize, shift: f64| -> (Vec<f64>, Vec<f64>) {
        (0..n)
            .map(|_| {
                let base = random.unit();
                (base, base + shift + 0.1 * random.normal())
            })
            .unzip()
    };
    let (a, b) = arms(100, 0.2);
    let higher = compare(&a, &b, 0.95, None).unwrap();
    assert_eq!(higher.verdict, Verdict::Higher);
    assert!(higher.conclusion("score").starts_with("score is higher in the variant"));
    assert_eq!(compare(&b, &a, 0.95, None).unwrap().verdict, Verdict::Lower);
    let (a, b) = arms(400, 0.0);
    assert_eq!(compare(&a, &b, 0.95, Some(0.05)).unwrap().verdict, Verdict::NoRelevantDifference);
    let (a, b) = arms(2000, 0.01);
    assert_eq!(compare(&a, &b, 0.95, None).unwrap().verdict, Verdict::Higher);
    assert_eq!(
        compare(&a, &b, 0.95, Some(0.05)).unwrap().verdict,
        Verdict::NoRelevantDifference,
        "real, and too small to matter"
    );
    let (a, b) = arms(5, 0.02);
    let unknown = compare(&a, &b, 0.95, Some(0.01)).unwrap();
    assert_eq!(unknown.verdict, Verdict::NotEnoughEvidence);
    assert!(unknown.conclusion("score").contains("pairs are needed"), "{}", unknown.conclusion("score"));
    assert_eq!(compare(&[1.0], &[1.0, 2.0], 0.95, None), None);
    assert_eq!(compare(&[f64::NAN, 1.0], &[1.0, 2.0], 0.95, None), None);
    let same = compare(&[0.5, 0.5], &[0.5, 0.5], 0.95, Some(0.1)).unwrap();
    assert_eq!(same.verdict, Verdict::NotEnoughEvidence, "two pairs show nothing");
}

/// Among many comparisons without a difference, one small p is not a finding.
#[test]
fn many_comparisons_are_corrected() {
    let one: Vec<f64> = [1.0; 6].into_iter().chain([0.0; 20]).collect();
    let none = vec![0.0; 26];
    let found = compare(&none, &one, 0.95, None).unwrap();
    assert_eq!(found.verdict, Verdict::Higher);
    assert!((found.p - 2.0 / 64.0).abs() < 1e-12);
    let mut many = vec![found.clone(); 1];
    many.extend((0..9).map(|_| compare(&none, &none, 0.95, None).unwrap()));
    adjust(&mut many);
    assert!((many[0].p_adjusted - 20.0 / 64.0).abs() < 1e-12);
    assert_eq!(many[0].verdict, Verdict::NotEnoughEvidence);
}
