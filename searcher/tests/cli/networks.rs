//! Networks of the user's: those that serve, those that do not, and those that do not learn.

use ddas_formats::Policy;
use ddas_search::{Metric, RunFolder};

use crate::stops::interrupt;
use crate::{Fixture, finish, stderr};

/// A TorchScript module of `modules/make.py`.
fn module(name: &str) -> String {
    format!("{}/tests/modules/{name}.pt", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn modules_of_the_user_are_searched_with_and_survive_a_kill() {
    let fixture = Fixture::new();
    for (name, epochs) in [
        ("convolutions", "epochs=30"),
        ("losses", "epochs=3"),
        ("traced", "epochs=2"),
        ("tied", "epochs=2"),
    ] {
        let model = module(name);
        let output = format!("{name}.json");
        let arguments = ["--model", &model, "--set", epochs, "-o", &output];
        let whole = finish(fixture.run(&arguments));
        assert!(whole.status.success(), "{name}: {}", stderr(&whole));
        let (run, record) = RunFolder::open(&fixture.path(&format!("{name}-run"))).unwrap();
        assert_eq!(record.settings.network, model);
        assert_eq!(record.network_hash.as_ref().map(String::len), Some(16));
        let accuracies = run.read_metrics().unwrap();
        let known = accuracies.iter().any(|metric| {
            matches!(
                metric,
                ddas_search::Metric::Epoch {
                    validation_accuracy: Some(_),
                    ..
                }
            )
        });
        assert_eq!(known, name != "losses");
        // Probabilities moved: gradients came back.
        let policy = Policy::read(&fixture.path(&output)).unwrap();
        let last = policy.snapshots().last().unwrap();
        assert!((last.total_probability() - 0.35).abs() > 1e-6, "{name}");
    }
    // A copy, to be changed afterwards.
    let copy = fixture.path("copy.pt");
    std::fs::copy(module("convolutions"), &copy).unwrap();
    let arguments = [
        "--model",
        "copy.pt",
        "--set",
        "epochs=30",
        "-o",
        "killed.json",
    ];
    interrupt(&fixture, &arguments, "killed-run", 24, "-KILL");
    let kept = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, [&kept[..], &[0]].concat()).unwrap();
    let changed = finish(fixture.command(&["resume", "killed-run"]));
    assert!(
        stderr(&changed).contains("no longer the network of this run"),
        "{}",
        stderr(&changed)
    );
    std::fs::write(&copy, kept).unwrap();
    let resumed = finish(fixture.command(&["resume", "killed-run"]));
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let read = |name: &str| Policy::read(&fixture.path(name)).unwrap();
    assert_eq!(
        read("killed.json").snapshots(),
        read("convolutions.json").snapshots()
    );
}

#[test]
fn a_dead_network_is_reported_and_leaves_the_policy_alone() {
    let fixture = Fixture::new();
    for (name, count) in [("constant", 6), ("vanishing", 6)] {
        let model = module(name);
        let output = format!("{name}.json");
        let found = finish(fixture.run(&["--model", &model, "-o", &output, "--set", "epochs=1"]));
        let text = stderr(&found);
        assert!(found.status.success(), "{text}");
        for wanted in [
            "warning: in 6 of 6 steps the network had no gradient on its training batch",
            "warning: in 6 of 6 steps the network had no gradient on the validation batch",
        ] {
            assert!(text.contains(wanted), "{name}: {text}");
        }
        let policy = Policy::read(&fixture.path(&output)).unwrap();
        let last = &policy.snapshots()[0];
        assert!((last.total_probability() - 0.35).abs() < 1e-12);
        let uniform = 1.0 / policy.search_space().len() as f64;
        let probabilities = last.operation_probabilities();
        assert!(probabilities.iter().all(|p| (p - uniform).abs() < 1e-12));
        let (run, _) = RunFolder::open(&fixture.path(&format!("{name}-run"))).unwrap();
        let dead = run
            .read_metrics()
            .unwrap()
            .into_iter()
            .find_map(|metric| match metric {
                Metric::Epoch { dead, .. } => Some(dead),
                _ => None,
            });
        let dead = dead.unwrap();
        assert_eq!((dead.idle_steps, dead.dead_training_steps), (count, count));
        let page = std::fs::read_to_string(run.report()).unwrap();
        assert!(
            page.contains("in 6 of 6 steps the network had no gradient"),
            "{name}"
        );
    }
}

#[test]
fn modules_that_cannot_serve_are_refused_by_what_is_wrong() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("noise.pt"), "no module").unwrap();
    for (model, wanted) in [
        (
            module("meanloss"),
            "one loss per sample (no mean over the batch)",
        ),
        (
            module("classes"),
            "one logit per sample and class of the dataset",
        ),
        (
            module("detached"),
            "training mode, without no_grad and detach",
        ),
        (module("nothing"), "has no parameters"),
        (
            module("untrainable"),
            "none of its 2 parameters is trainable",
        ),
        ("noise.pt".to_owned(), "torch.jit.script(model).save(path)"),
        ("missing.pt".to_owned(), "missing.pt"),
    ] {
        let output = finish(fixture.run(&["--model", &model]));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(wanted), "{wanted}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let output = finish(fixture.run(&[
        "--model",
        &module("convolutions"),
        "--set",
        "precision=bf16",
    ]));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("TorchScript"),
        "{}",
        stderr(&output)
    );
    let output =
        finish(fixture.run(&["--model", &module("convolutions"), "--set", "image_size=16"]));
    assert!(output.status.success(), "any size: {}", stderr(&output));
    let output = finish(fixture.run(&[
        "--model",
        &module("traced"),
        "--set",
        "image_size=16",
        "--overwrite",
    ]));
    assert!(
        stderr(&output).contains("its forward failed for images of [2, 3, 16, 16]"),
        "{}",
        stderr(&output)
    );
}
