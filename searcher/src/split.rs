//! The proxy data: which samples train the network and which the policy.

use ddas_runtime::{SampleRng, Stream};

use crate::error::{Error, Result};

/// Two disjoint sets of sample indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Samples that train the network.
    pub train: Vec<u64>,
    /// Samples that train the policy.
    pub validation: Vec<u64>,
}

/// Draws both sets so that each holds the classes in the proportions of the whole dataset
/// (rounded by largest remainders), in an order that depends on `seed` alone.
///
/// ```
/// use ddas_search::stratified_split;
///
/// let labels = [0, 0, 0, 0, 1, 1, 1, 1];
/// let split = stratified_split(&labels, 4, 2, 0)?;
/// let ones = split.train.iter().filter(|&&index| labels[index as usize] == 1).count();
/// assert_eq!((split.train.len(), split.validation.len(), ones), (4, 2, 2));
/// # Ok::<(), ddas_search::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] when there are fewer samples than asked for.
pub fn stratified_split(labels: &[i64], train: u64, validation: u64, seed: u64) -> Result<Split> {
    let wanted = train.saturating_add(validation);
    if wanted > labels.len() as u64 {
        return Err(Error::Invalid(format!(
            "the dataset holds {} samples, fewer than train_samples + validation_samples = {train} \
             + {validation}; lower them with --set",
            labels.len()
        )));
    }
    let (_, mut members) = members(labels);
    let counts: Vec<u64> = members
        .iter()
        .map(|of_class| of_class.len() as u64)
        .collect();
    let taken = apportion(wanted, &counts);
    let to_train = apportion(train, &taken);
    let parts: Vec<(u64, u64)> = (to_train.iter().zip(&taken))
        .map(|(&train, &taken)| (train, taken - train))
        .collect();
    Ok(draw(&mut members, &parts, seed))
}

/// Draws `classes` classes and then equally many samples of each for both sets, by `seed` alone.
/// Classes with too few samples are not drawn. Returns the classes in ascending order, too.
///
/// ```
/// use ddas_search::class_split;
///
/// let labels = [5, 5, 5, 7, 9, 9, 9, 9];
/// let (classes, split) = class_split(&labels, 2, 4, 2, 0)?;
/// assert_eq!(classes, [5, 9]); // of class 7 there is one sample only
/// assert_eq!((split.train.len(), split.validation.len()), (4, 2));
/// # Ok::<(), ddas_search::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] when a number of samples is no multiple of `classes`, or there are fewer
/// classes with enough samples.
pub fn class_split(
    labels: &[i64],
    classes: u32,
    train: u64,
    validation: u64,
    seed: u64,
) -> Result<(Vec<i64>, Split)> {
    let count = u64::from(classes);
    if count == 0 || !train.is_multiple_of(count) || !validation.is_multiple_of(count) {
        return Err(Error::Invalid(format!(
            "{train} and {validation} samples cannot be shared out equally among {classes} classes"
        )));
    }
    let (train, validation) = (train / count, validation / count);
    let (present, members) = members(labels);
    let mut candidates: Vec<usize> = (0..present.len())
        .filter(|&class| members[class].len() as u64 >= train + validation)
        .collect();
    if (candidates.len() as u64) < count {
        return Err(Error::Invalid(format!(
            "{} of the dataset's {} classes have {} samples or more ({train} to train on, \
             {validation} to validate on), fewer than classes = {classes}; lower classes, \
             train_samples and validation_samples with --set (classes=null takes all classes as \
             they are)",
            candidates.len(),
            present.len(),
            train + validation
        )));
    }
    let mut rng = SampleRng::new(seed, u32::MAX, 3 << 62, Stream::Order);
    shuffle(&mut candidates, &mut rng);
    candidates.truncate(classes as usize);
    candidates.sort_unstable();
    let mut chosen: Vec<Vec<u64>> = candidates
        .iter()
        .map(|&class| members[class].clone())
        .collect();
    let parts = vec![(train, validation); candidates.len()];
    let split = draw(&mut chosen, &parts, seed);
    let labels = candidates.iter().map(|&class| present[class]).collect();
    Ok((labels, split))
}

/// The labels that occur, ascending, and the samples of each.
fn members(labels: &[i64]) -> (Vec<i64>, Vec<Vec<u64>>) {
    let mut classes: Vec<i64> = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let mut members: Vec<Vec<u64>> = vec![Vec::new(); classes.len()];
    for (index, label) in (0u64..).zip(labels) {
        if let Ok(class) = classes.binary_search(label) {
            members[class].push(index);
        }
    }
    (classes, members)
}

/// Draws so many of each class's members for both sets.
fn draw(members: &mut [Vec<u64>], parts: &[(u64, u64)], seed: u64) -> Split {
    let mut split = Split {
        train: Vec::new(),
        validation: Vec::new(),
    };
    for (class, of_class) in members.iter_mut().enumerate() {
        let mut rng = SampleRng::new(seed, u32::MAX, class as u64, Stream::Order);
        shuffle(of_class, &mut rng);
        let (train, validation) = parts[class];
        let (first, rest) = of_class.split_at(train as usize);
        split.train.extend_from_slice(first);
        split
            .validation
            .extend_from_slice(&rest[..validation as usize]);
    }
    // Batches take consecutive samples: mix the classes.
    shuffle(
        &mut split.train,
        &mut SampleRng::new(seed, u32::MAX, 1 << 62, Stream::Order),
    );
    shuffle(
        &mut split.validation,
        &mut SampleRng::new(seed, u32::MAX, 2 << 62, Stream::Order),
    );
    split
}

/// Shares `total` out in proportion to `weights` by largest remainders; no part exceeds its
/// weight when `total` does not exceed their sum.
fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let quota = |weight: u64| u128::from(total) * u128::from(weight);
    let mut parts: Vec<u64> = weights
        .iter()
        .map(|&weight| (quota(weight) / sum) as u64)
        .collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(quota(weights[class]) % sum));
    let missing = total - parts.iter().sum::<u64>();
    for &class in by_remainder.iter().take(missing as usize) {
        parts[class] += 1;
    }
    parts
}

/// Fisher and Yates' shuffle.
pub(crate) fn shuffle<T>(values: &mut [T], rng: &mut SampleRng) {
    for last in (1..values.len()).rev() {
        let other = rng.below(last as u32 + 1) as usize;
        values.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_counts(indices: &[u64], labels: &[i64], classes: i64) -> Vec<usize> {
        (0..classes)
            .map(|class| {
                indices
                    .iter()
                    .filter(|&&i| labels[i as usize] == class)
                    .count()
            })
            .collect()
    }

    #[test]
    fn both_parts_are_stratified_disjoint_and_of_the_size_asked_for() {
        let labels: Vec<i64> = (0..1000)
            .map(|i| i64::from(i % 10 == 0) + i64::from(i % 4 == 0))
            .collect();
        let split = stratified_split(&labels, 403, 207, 5).unwrap();
        assert_eq!((split.train.len(), split.validation.len()), (403, 207));
        let mut all: Vec<u64> = split
            .train
            .iter()
            .chain(&split.validation)
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 610);
        let whole = class_counts(&(0..1000).collect::<Vec<_>>(), &labels, 3);
        for (part, size) in [(&split.train, 403.0), (&split.validation, 207.0)] {
            for (class, count) in class_counts(part, &labels, 3).into_iter().enumerate() {
                let expected = whole[class] as f64 * size / 1000.0;
                assert!(
                    (count as f64 - expected).abs() < 2.0,
                    "class {class}: {count}"
                );
            }
        }
        // Both in mixed order, not class by class.
        let firsts: Vec<i64> = split.validation[..60]
            .iter()
            .map(|&i| labels[i as usize])
            .collect();
        assert!(firsts.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn all_samples_can_be_taken() {
        let labels = [2, 2, 2, 7, 7, 7, 7, 9];
        let split = stratified_split(&labels, 5, 3, 1).unwrap();
        let mut all: Vec<u64> = split
            .train
            .iter()
            .chain(&split.validation)
            .copied()
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn classes_are_drawn_with_equally_many_samples_each() {
        // 40 classes of 5 to 9 samples.
        let labels: Vec<i64> = (0..40)
            .flat_map(|class| std::iter::repeat_n(class, 5 + class as usize % 5))
            .collect();
        let draw = |seed| class_split(&labels, 8, 32, 16, seed).unwrap();
        let (classes, split) = draw(1);
        assert_eq!(classes.len(), 8);
        assert!(classes.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(
            classes.iter().all(|class| class % 5 >= 1),
            "6 samples are needed"
        );
        for class in &classes {
            let count = |part: &[u64]| {
                part.iter()
                    .filter(|&&i| labels[i as usize] == *class)
                    .count()
            };
            assert_eq!((count(&split.train), count(&split.validation)), (4, 2));
        }
        assert!(
            split
                .train
                .iter()
                .all(|index| !split.validation.contains(index))
        );
        assert_eq!(draw(1), (classes.clone(), split));
        assert_ne!(draw(2).0, classes);

        let error = class_split(&labels, 33, 132, 66, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("32 of the dataset's 40 classes"), "{error}");
        assert!(error.contains("classes, train_samples"), "{error}");
        assert!(class_split(&labels, 8, 33, 16, 0).is_err());
    }

    #[test]
    fn the_seed_decides() {
        let labels: Vec<i64> = (0..100).map(|i| i % 3).collect();
        let split = |seed| stratified_split(&labels, 30, 30, seed).unwrap();
        assert_eq!(split(4), split(4));
        assert_ne!(split(4), split(5));
    }

    #[test]
    fn too_few_samples_are_refused() {
        let error = stratified_split(&[0, 1, 0], 2, 2, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("holds 3 samples"), "{error}");
    }
}
