//! Imports a policy file of the authors' search program and shows what is in it.
//!
//! ```sh
//! cargo run -p ddas-formats --example import_policy -- wresnet40x2_cifar10.npy policy.json
//! ```

use std::error::Error;
use std::path::PathBuf;

use ddas_formats::import_authors_policy;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(npy), Some(json)) = (arguments.next(), arguments.next()) else {
        return Err("usage: import_policy AUTHORS.npy POLICY.json".into());
    };
    let policy = import_authors_policy(&npy, None)?;
    policy.write(&json)?;
    println!(
        "{} operations, {} snapshots",
        policy.search_space().len(),
        policy.snapshots().len()
    );
    for (index, snapshot) in policy.snapshots().iter().enumerate() {
        let probabilities = snapshot.operation_probabilities();
        let likeliest =
            (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        println!(
            "snapshot {index:2}: total probability {:.3}, likeliest operation {} at {:.4}, sum {:.7}",
            snapshot.total_probability(),
            likeliest.map_or(String::new(), |index| policy.search_space().entries()
                [index]
                .label()),
            likeliest.map_or(0.0, |index| probabilities[index]),
            probabilities.iter().sum::<f64>(),
        );
    }
    Ok(())
}
