use super::*;

#[test]
fn the_table_of_settings_is_the_struct() {
    let config = Config::preset("cifar10").unwrap();
    let serde_json::Value::Object(fields) = serde_json::to_value(&config).unwrap() else {
        panic!("a struct is an object");
    };
    let mut keys: Vec<&str> = Config::SETTINGS.iter().map(|setting| setting.key).collect();
    keys.sort_unstable();
    let mut wanted: Vec<&str> = fields.keys().map(String::as_str).collect();
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
}

#[test]
fn every_preset_is_valid_and_names_a_search_space() {
    for name in Config::PRESETS {
        let config = Config::preset(name).unwrap();
        config.validate().unwrap();
        assert!(config.resolve_search_space().unwrap().len() > 10, "{name}");
    }
    let sanity = Config::preset("sanity").unwrap();
    assert!(sanity.turn_validation);
    let imagenet = Config::preset("imagenet").unwrap();
    assert_eq!((imagenet.steps(), imagenet.branches), (40 * 187, 2));
    let released = Config::preset("imagenet-released").unwrap();
    assert_eq!((released.steps(), released.branches), (40 * 93, 3));
    assert!(
        Config::preset("cifar")
            .unwrap_err()
            .to_string()
            .contains("cifar100")
    );
}

#[test]
fn every_kind_of_value_can_be_set() {
    let mut config = Config::preset("cifar10").unwrap();
    for assignment in [
        "epochs=3",
        "network=wrn-16-1",
        "learning_rate=5e-2",
        "momentum=0",
        "loss=mean",
        "precision=bf16",
        "flip=false",
        "mean=[0.5,0.5,0.5]",
        "draws_per_sample=1",
        " seed = 18446744073709551615 ",
    ] {
        config.set(assignment).unwrap();
    }
    assert_eq!(config.epochs, 3);
    assert_eq!(config.network, "wrn-16-1");
    assert_eq!(config.learning_rate, 0.05);
    assert_eq!(config.loss, LossReduction::Mean);
    assert!(!config.flip);
    assert_eq!(config.mean, [0.5; 3]);
    assert_eq!(config.draws_per_sample, Some(1));
    assert_eq!(config.resolve_search_space().unwrap().draws_per_sample(), 1);
    assert_eq!(config.seed, u64::MAX);
}

#[test]
fn wrong_assignments_name_the_key_and_what_it_takes() {
    let mut config = Config::preset("cifar10").unwrap();
    let before = config.clone();
    for (assignment, wanted) in [
        ("epochs=2.5", "`epochs`: expected a whole number, got `2.5`"),
        ("epochs=-1", "a whole number"),
        ("epochs=", "a whole number"),
        ("flip=yes", "true or false"),
        ("loss=median", "sum or mean"),
        ("mean=[0.5,0.5]", "three numbers"),
        ("epochs", "KEY=VALUE"),
        ("epoch=3", "the keys are search_space, draws_per_sample"),
    ] {
        let error = config.set(assignment).unwrap_err().to_string();
        assert!(error.contains(wanted), "{assignment}: {error}");
    }
    assert_eq!(config, before);
}

#[test]
fn the_native_engine_is_refused_by_name_where_there_is_none() {
    let mut config = Config::preset("cifar10").unwrap();
    config.set("network=resnet-18").unwrap();
    config.validate().unwrap();
    config.set("engine=native").unwrap();
    let error = config.validate().unwrap_err().to_string();
    let wanted = "`engine`: native needs a wide residual network (wrn-DEPTH-WIDTH)";
    assert!(error.contains(wanted), "{error}");
    let resolve = |engine: Engine, device| {
        let network = "wrn-40-2".parse().unwrap();
        engine.resolve(&network, Precision::F32, tch::Kind::Float, device)
    };
    let (cpu, cuda) = (tch::Device::Cpu, tch::Device::Cuda(0));
    assert_eq!(resolve(Engine::Auto, cuda).unwrap(), Engine::Libtorch);
    assert_eq!(resolve(Engine::Libtorch, cpu).unwrap(), Engine::Libtorch);
    let error = resolve(Engine::Native, cuda).unwrap_err().to_string();
    assert!(error.contains("--device cpu"), "{error}");
}

#[test]
fn runs_without_an_engine_go_on_with_libtorch() {
    let config = Config::preset("cifar10").unwrap();
    let mut value = serde_json::to_value(&config).unwrap();
    assert_eq!(value["engine"], "auto");
    value.as_object_mut().unwrap().remove("engine");
    let earlier: Config = serde_json::from_value(value).unwrap();
    assert_eq!(earlier.engine, Engine::Libtorch);
}

#[test]
fn values_out_of_range_are_refused_with_their_key() {
    for assignment in [
        "epochs=0",
        "train_batch=1",
        "train_samples=31",
        "validation_samples=255",
        "branches=0",
        "learning_rate=-1",
        "momentum=1",
        "nesterov=true",
        "exploit_probability=1.5",
        "total_probability=0",
        "smoothing_window=0",
        "cutout=65",
        "crop_padding=33",
        "std=[0,1,1]",
        "image_size=2",
        "draws_per_sample=0",
        "classes=1",
        "classes=3",
        "crop_scale=[0.5,0.2]",
    ] {
        let mut config = Config::preset("cifar10").unwrap();
        config.set(assignment).unwrap();
        let error = config.validate().unwrap_err().to_string();
        let key = match assignment {
            "classes=3" => "train_samples",
            _ => assignment.split('=').next().unwrap(),
        };
        assert!(
            error.starts_with(&format!("setting `{key}`")),
            "{assignment}: {error}"
        );
    }
    let mut config = Config::preset("cifar10").unwrap();
    config.set("network=own.pt").unwrap();
    config.validate().unwrap();
    config.set("precision=bf16").unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("TorchScript"), "{error}");
    let mut config = Config::preset("imagenet").unwrap();
    config.set("crop_padding=4").unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("crop_padding"), "{error}");
    let mut config = Config::preset("cifar10").unwrap();
    config.set("network=vgg").unwrap();
    assert!(config.validate().is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("space.json");
    config.search_space = path.display().to_string();
    let resolve = |entries: &str| {
        let text = format!(r#"{{"name":"mine","draws_per_sample":2,"operations":[{entries}]}}"#);
        std::fs::write(&path, text).unwrap();
        config.resolve_search_space()
    };
    let own = resolve(r#"{"kind":"Identity"},{"kind":"Posterize","bits":5}"#).unwrap();
    assert_eq!(
        (own.len(), own.name(), own.draws_per_sample()),
        (2, "mine", 2)
    );
    let sequence =
        r#"{"kind":"Sequence","steps":[{"probability":0.5,"operation":{"kind":"Invert"}}]}"#;
    let varied =
        r#"{"kind":"Color","factor":1.2,"varies":{"distribution":"uniform","low":0.5,"high":1.5}}"#;
    for refused in [sequence, varied, r#"{"kind":"Posterise","bits":5}"#] {
        let error = resolve(refused).unwrap_err().to_string();
        assert!(error.starts_with("setting `search_space`: "), "{error}");
    }
    let error = resolve(sequence).unwrap_err().to_string();
    assert!(
        error.contains("operations[0]") && error.contains("is a sequence"),
        "{error}"
    );
    config.set("search_space=missing.json").unwrap();
    let error = config.resolve_search_space().unwrap_err().to_string();
    assert!(error.contains("paper68"), "{error}");
}

#[test]
fn the_cost_of_a_step_ignores_how_many_there_are() {
    let preset = Config::preset("cifar10").unwrap();
    assert_eq!(preset.steps(), 1240);
    let mut short = preset.clone();
    short.set("epochs=1").unwrap();
    short.set("train_samples=320").unwrap();
    assert_eq!(short.steps(), 10);
    assert!(short.steps_cost_the_same(&preset));
    // As in a run, whose engine has been chosen.
    short.engine = Engine::Native;
    assert!(short.steps_cost_the_same(&preset));
    short.set("branches=2").unwrap();
    assert!(!short.steps_cost_the_same(&preset));
}
