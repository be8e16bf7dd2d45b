//! The image, compose and the manifests of Kubernetes.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Component, Path, PathBuf},
    process::{Command, Output},
};

use catalog_sync::{
    config::Config,
    daemon::{DATABASE_SILENCE, health::Readiness, health::Server, pulse::Pulse},
    metrics::Metrics,
};
use serde_yaml_ng::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{ask, documents, no, path, shipped, yaml, yes};

const DOCKERFILE: &str = "deploy/Dockerfile";
const COMPOSE: &str = "deploy/compose.yaml";
const KUBERNETES: &str = "deploy/kubernetes";

/// The instructions of the Dockerfile, each on one line.
fn instructions() -> Vec<(String, Vec<String>)> {
    let text = shipped(DOCKERFILE).replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            (words.next().unwrap(), words.collect())
        })
        .collect()
}

/// What is copied into the build, from the folder of the source.
fn copied() -> Vec<String> {
    let copies = instructions()
        .into_iter()
        .filter(|(instruction, words)| instruction == "COPY" && !words[0].starts_with("--from"));
    copies
        .flat_map(|(_, mut words)| {
            words.pop();
            words
        })
        .collect()
}

#[test]
fn the_image_is_built_from_what_is_there_and_not_ignored() {
    let ignore = shipped("deploy/Dockerfile.dockerignore");
    let allowed: BTreeSet<_> = ignore
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert!(
        ignore.lines().any(|line| line == "*"),
        "keys and databases stay out"
    );
    let copied = copied();
    assert_eq!(
        copied.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        allowed
    );
    for name in &copied {
        assert!(path(name).exists(), "{name}");
    }
}

/// The files that the sources in this folder include, from the folder of the source; not those of the simulator and of fuzzing.
fn included(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path(folder.to_str().unwrap())).unwrap() {
        let name = folder.join(entry.unwrap().file_name());
        if name == Path::new("src/simulator") || name == Path::new("src/fuzz.rs") {
            continue;
        }
        if path(name.to_str().unwrap()).is_dir() {
            included(&name, found);
            continue;
        }
        if name.ends_with("tests.rs") {
            continue; // No part of a build.
        }
        let text = shipped(name.to_str().unwrap());
        for macro_name in ["include_str!(\"", "include_bytes!(\""] {
            for rest in text.split(macro_name).skip(1) {
                let mut file = folder.to_owned();
                for part in Path::new(rest.split('"').next().unwrap()).components() {
                    match part {
                        Component::ParentDir => assert!(file.pop()),
                        part => file.push(part),
                    }
                }
                found.push(file);
            }
        }
    }
}

#[test]
fn what_the_sources_include_is_copied_into_the_build() {
    let mut files = Vec::new();
    included(Path::new("src"), &mut files);
    assert!(files.len() > 8, "{files:?}");
    let copied = copied();
    for file in files {
        let has = copied.iter().any(|name| file.starts_with(name));
        assert!(
            has || file.starts_with("tests"),
            "{} is not copied",
            file.display()
        );
    }
    // A manifest that names what is not there would not do.
    let folder = tempfile::tempdir().unwrap();
    for name in &copied {
        yes(&Command::new("cp")
            .arg("-r")
            .arg(path(name))
            .arg(folder.path())
            .output()
            .unwrap());
    }
    let arguments = [
        "metadata",
        "--offline",
        "--locked",
        "--no-deps",
        "--format-version=1",
    ];
    yes(&Command::new("cargo")
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap());
}

#[test]
fn the_image_has_no_simulator_and_is_not_run_by_root() {
    let instructions = instructions();
    let built = instructions
        .iter()
        .find(|(instruction, _)| instruction == "RUN")
        .unwrap();
    let built = built.1.join(" ");
    assert!(
        built.contains(
            "cargo build --release --locked --no-default-features --features production "
        )
    );
    let (_, user) = instructions
        .iter()
        .rfind(|(instruction, _)| instruction == "USER")
        .unwrap();
    let ids: Vec<u32> = user[0].split(':').map(|id| id.parse().unwrap()).collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| *id > 0), "{ids:?}");
    let (_, variables) = instructions
        .iter()
        .rfind(|(instruction, _)| instruction == "ENV")
        .unwrap();
    let variables = variables.iter().map(|it| it.split_once('=').unwrap());
    let config = load(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (_, ports) = instructions
        .iter()
        .rfind(|(instruction, _)| instruction == "EXPOSE")
        .unwrap();
    assert_eq!(config.health.listen, format!("0.0.0.0:{}", ports[0]));
}

/// The configuration that these variables give.
fn load(variables: impl Iterator<Item = (String, String)>) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    Config::load(Some(file.path()), variables).unwrap()
}

fn compose_config(file: &Path) -> Option<Output> {
    ask(Command::new("docker-compose")
        .arg("-f")
        .arg(file)
        .args(["config", "--quiet"]))
}

#[test]
fn compose_takes_its_file_and_refuses_a_broken_one() {
    let Some(output) = compose_config(&path(COMPOSE)) else {
        return;
    };
    yes(&output);
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("compose.yaml");
    fs::copy(path(COMPOSE), &broken).unwrap();
    yes(&compose_config(&broken).unwrap());
    for (right, wrong) in [
        ("stop_grace_period", "stop_grace"),
        ("mem_limit: 512m", "mem_limit: [512]"),
        ("service_healthy", "service_well"),
    ] {
        fs::write(&broken, shipped(COMPOSE).replace(right, wrong)).unwrap();
        no(&compose_config(&broken).unwrap());
    }
}

#[test]
fn the_worker_of_compose_is_configured_and_hardened() {
    let compose = yaml(COMPOSE).remove(0);
    for (name, service) in compose["services"].as_mapping().unwrap() {
        assert_eq!(service["read_only"], true, "{name:?}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name:?}");
        let image = service["image"].as_str().unwrap();
        let pinned = image
            .split_once(':')
            .is_some_and(|(_, tag)| tag.starts_with(|it: char| it.is_ascii_digit()));
        assert!(pinned || service.get("build").is_some(), "{image}");
    }
    let worker = &compose["services"]["worker"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let variables = worker["environment"].as_mapping().unwrap();
    let config = load(
        variables
            .iter()
            .map(|(name, value)| (text(name), text(value))),
    );
    let secrets: Vec<_> = worker["secrets"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    let named = [
        config.store.url_file.display().to_string(),
        config.vault.master_keys[0].place(),
    ];
    assert_eq!(
        named,
        [&secrets[0], &secrets[1]].map(|name| format!("/run/secrets/{name}"))
    );
    for secret in &secrets {
        assert!(compose["secrets"].get(secret).is_some(), "{secret}");
    }
    let grace = text(&worker["stop_grace_period"]);
    assert!(
        1000 * grace.trim_end_matches('s').parse::<u64>().unwrap()
            > config.daemon.grace_ms + 15_000
    );
    let port = text(&worker["ports"][0]);
    let (_, exposed) = instructions()
        .into_iter()
        .find(|(instruction, _)| instruction == "EXPOSE")
        .unwrap();
    assert_eq!(port, format!("127.0.0.1:{0}:{0}", exposed[0]));
}

/// `kubernetes-validate` from a place of the tests' own, or from anywhere.
fn validate(file: &Path) -> Option<Output> {
    let own = path("target/kubernetes-validate/bin/kubernetes-validate");
    let program = if own.exists() {
        own
    } else {
        "kubernetes-validate".into()
    };
    ask(Command::new(program)
        .args(["--strict", "--no-warn"])
        .arg(file))
}

#[test]
fn kubernetes_takes_the_manifests_and_refuses_a_broken_one() {
    let names = fs::read_dir(path(KUBERNETES))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    // What the Prometheus operator defines is not in Kubernetes' own schema.
    let names: Vec<_> = names
        .filter(|name| !name.ends_with("podmonitor.yaml"))
        .collect();
    assert_eq!(names.len(), 5);
    for name in names {
        let Some(output) = validate(&name) else {
            return;
        };
        yes(&output);
    }
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("deployment.yaml");
    for (right, wrong) in [
        ("readinessProbe:", "readynessProbe:"),
        ("replicas: 2", "replicas: two"),
    ] {
        let text = shipped("deploy/kubernetes/deployment.yaml");
        fs::write(&broken, text.replace(right, wrong)).unwrap();
        no(&validate(&broken).unwrap());
    }
}

fn manifest(name: &str) -> Value {
    documents(&shipped(&format!("{KUBERNETES}/{name}.yaml"))).remove(0)
}

/// The configuration of the `ConfigMap`, and its text.
fn config_map() -> (Config, String) {
    let text = manifest("configmap")["data"]["worker.toml"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &text).unwrap();
    (Config::load(Some(file.path()), []).unwrap(), text)
}

#[test]
fn manifests_agree_with_each_other_and_with_the_configuration() {
    let (config, _) = config_map();
    let deployment = manifest("deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let worker = &pod["containers"][0];
    let port = worker["ports"][0]["containerPort"].as_u64().unwrap();
    assert_eq!(config.health.listen, format!("0.0.0.0:{port}"));
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], port.to_string());
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(worker[probe]["httpGet"]["port"], worker["ports"][0]["name"]);
    }
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(1000 * grace > config.daemon.grace_ms + 15_000);

    let job = manifest("migrate");
    let migration = &job["spec"]["template"]["spec"];
    let image = &worker["image"];
    assert_eq!(&migration["containers"][0]["image"], image);
    assert!(
        image
            .as_str()
            .unwrap()
            .ends_with(concat!(":", env!("CARGO_PKG_VERSION")))
    );
    for (pod, kind) in [(pod, "run"), (migration, "migrate")] {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["args"][0], kind);
        let mounted = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        let variable = &container["env"][0];
        assert_eq!(variable["name"], "CATALOG_SYNC_CONFIG");
        assert_eq!(variable["value"], format!("{mounted}/worker.toml"));
        // The migration has no need of the master key.
        let secrets = pod["volumes"][0]["projected"]["sources"][1]["secret"]["items"]
            .as_sequence()
            .unwrap();
        let mut files = vec![
            config.vault.master_keys[0].place(),
            config.store.url_file.display().to_string(),
        ];
        files.drain(..2 - secrets.len());
        let paths = secrets.iter().map(|item| item["path"].as_str().unwrap());
        assert!(
            paths.map(|path| format!("{mounted}/{path}")).eq(files),
            "{kind}"
        );
    }

    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let selectors = [
        &deployment["spec"]["selector"]["matchLabels"],
        &manifest("disruption")["spec"]["selector"]["matchLabels"],
        &manifest("podmonitor")["spec"]["selector"]["matchLabels"],
        &manifest("network")["spec"]["podSelector"]["matchLabels"],
    ];
    for selector in selectors {
        for (name, value) in selector.as_mapping().unwrap() {
            assert_eq!(labels.get(name), Some(value));
        }
    }
    let monitored = &manifest("podmonitor")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(monitored["port"], worker["ports"][0]["name"]);
    assert_eq!(monitored["path"], annotations["prometheus.io/path"]);
}

#[tokio::test]
async fn probes_ask_for_what_is_answered() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.address();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(
        Pulse::default(),
        Readiness::new(DATABASE_SILENCE),
        Metrics::default(),
        stop.clone(),
    ));
    let deployment = manifest("deployment");
    let worker = &deployment["spec"]["template"]["spec"]["containers"][0];
    let pod = &deployment["spec"]["template"]["metadata"]["annotations"];
    // One that has just started lives, and is not ready.
    for (path, status) in [
        (&worker["livenessProbe"]["httpGet"]["path"], "200 OK"),
        (&worker["readinessProbe"]["httpGet"]["path"], "503 "),
        (&pod["prometheus.io/path"], "200 OK"),
    ] {
        let path = path.as_str().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
    }
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

/// A mounted secret is a file of root's behind two links, which the pod's group may read with the mode of the manifest.
#[test]
fn a_secret_as_kubernetes_mounts_it_is_taken_and_one_that_everybody_can_read_is_not() {
    const USER: u32 = 65532;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files to another user");
        return;
    }
    let deployment = shipped("deploy/kubernetes/deployment.yaml");
    assert!(
        deployment.contains("            defaultMode: 0440\n")
            && deployment.contains("fsGroup: 65532\n")
    );
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_catalog-sync"), at("catalog-sync")).unwrap();
    for name in ["etc/..2026_11_23/secret", "home"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    std::os::unix::fs::chown(at("home"), Some(USER), Some(USER)).unwrap();
    std::os::unix::fs::symlink("..2026_11_23", at("etc/..data")).unwrap();
    for name in ["worker.toml", "secret"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), at("etc").join(name)).unwrap();
    }
    let (_, config) = config_map();
    let config = config.replace("/etc/catalog-sync", at("etc").to_str().unwrap());
    let write = |name: &str, text: &str, mode: u32| {
        let file = at("etc/..2026_11_23").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&file, Some(0), Some(USER)).unwrap();
    };
    write("worker.toml", &config, 0o440);
    write(
        "secret/database.url",
        &format!("sqlite:{}", at("home/catalog.db").display()),
        0o440,
    );
    write(
        "secret/master.key",
        "k20261123-4f2a:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n",
        0o440,
    );
    let run = |arguments: &[&str]| {
        let mut command = Command::new(at("catalog-sync"));
        command
            .args(arguments)
            .arg("--config")
            .arg(at("etc/worker.toml"));
        command
            .env_clear()
            .current_dir("/")
            .uid(USER)
            .gid(USER)
            .output()
            .unwrap()
    };
    yes(&run(&["migrate"]));
    yes(&run(&["check-config"]));
    for name in ["secret/master.key", "secret/database.url"] {
        let file = at("etc/..2026_11_23").join(name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        let said = no(&run(&["check-config"]));
        assert!(said.contains("mode 444"), "{said}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
    }
    yes(&run(&["check-config"]));
}
