use serde_json::{Value, json};

use super::settings::Choices;
use super::*;

pub(super) const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: orders, namespace: shop }
spec:
  selector: { matchLabels: { app: orders } }
  template:
    metadata: { labels: { app: orders } }
    spec:
      containers:
        - name: orders
          image: orders
          args: [serve]
          env: [{ name: HOST, value: 0.0.0.0 }, { name: DEBUG, value: "on" }]
          ports: [{ name: http, containerPort: 8080 }, { name: metrics, containerPort: 9090 }]
          startupProbe: { tcpSocket: { port: 8080 } }
          readinessProbe:
            httpGet: { path: /ready?deep=1, port: http, httpHeaders: [{ name: X-Probe, value: "1" }] }
            periodSeconds: 3
          livenessProbe: { httpGet: { path: /metrics, port: metrics } }
          lifecycle: { preStop: { httpGet: { path: /bye, port: http } } }
---
apiVersion: v1
kind: Service
metadata: { name: orders, namespace: shop }
spec:
  selector: { app: orders }
  ports: [{ name: web, port: 80, targetPort: http }, { name: metrics, port: 9090 }]
"#;

pub(super) fn documents(text: &str) -> Vec<Value> {
    serde_yaml::from_multiple(text).unwrap()
}

pub(super) fn settings(lock: Lock) -> Settings {
    Settings {
        image: "valgate:1".to_owned(),
        config_map: "valgate".to_owned(),
        tls_secret: Some("tls".to_owned()),
        port: 8443,
        health_port: 8081,
        app_ports: vec![8080],
        lock,
    }
}

pub(super) fn loopback() -> Settings {
    settings(Lock::Loopback(Bind::Environment { name: "HOST".to_owned(), value: "127.0.0.1".to_owned() }))
}

#[test]
fn the_gateway_comes_first_and_the_application_moves_to_loopback() {
    let injected = inject(documents(DEPLOYMENT), &loopback()).unwrap();
    let pod = injected.documents[0].pointer("/spec/template/spec").unwrap();

    let sidecar = &pod["initContainers"][0];
    assert_eq!(sidecar["name"], "valgate");
    assert_eq!(sidecar["restartPolicy"], "Always");
    let application = &pod["containers"][0];
    let env = json!([{ "name": "DEBUG", "value": "on" }, { "name": "HOST", "value": "127.0.0.1" }]);
    assert_eq!(application["env"], env);
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert_eq!(volumes, ["valgate-configuration", "valgate-state"]);

    let ports = &injected.documents[1]["spec"]["ports"];
    assert_eq!(ports[0]["targetPort"], "valgate");
    assert_eq!(ports[0]["port"], 80);
    assert_eq!(ports[1], json!({ "name": "metrics", "port": 9090 }));
}

#[test]
fn the_kubelets_questions_reach_the_application_through_the_gateway() {
    let injected = inject(documents(DEPLOYMENT), &loopback()).unwrap();
    let pod = injected.documents[0].pointer("/spec/template/spec").unwrap();
    let application = &pod["containers"][0];

    let get = |path: &str| json!({ "httpGet": { "path": path, "port": 8081 } });
    assert_eq!(application["startupProbe"], get("/probes/orders/startup"));
    let ready = &application["readinessProbe"];
    assert_eq!(ready["httpGet"]["path"], "/probes/orders/readiness");
    assert_eq!(ready["httpGet"]["httpHeaders"], json!([{ "name": "X-Probe", "value": "1" }]));
    assert_eq!(ready["periodSeconds"], 3);
    assert_eq!(application["livenessProbe"]["httpGet"], json!({ "path": "/metrics", "port": "metrics" }));
    assert_eq!(application["lifecycle"]["preStop"], get("/probes/orders/pre-stop"));
    let carried = json!([
        "run",
        "--config",
        "/etc/valgate/valgate.yaml",
        "--probe=/probes/orders/startup=tcp://127.0.0.1:8080",
        "--probe=/probes/orders/readiness=http://127.0.0.1:8080/ready?deep=1",
        "--probe=/probes/orders/pre-stop=http://127.0.0.1:8080/bye",
    ]);
    assert_eq!(pod["initContainers"][0]["args"], carried);
}

#[test]
fn twice_is_once_whatever_the_lock() {
    let locks = [
        loopback().lock,
        Lock::Loopback(Bind::Argument("--host=127.0.0.1".to_owned())),
        Lock::NetworkPolicy,
        Lock::Nftables { image: "nft".to_owned() },
        Lock::Open,
    ];
    for lock in locks {
        let settings = settings(lock);
        let once = inject(documents(DEPLOYMENT), &settings).unwrap().documents;
        let twice = inject(once.clone(), &settings).unwrap().documents;
        assert_eq!(once, twice, "{:?}", settings.lock);
    }
}

#[test]
fn another_lock_replaces_the_first() {
    let first = inject(documents(DEPLOYMENT), &settings(Lock::Nftables { image: "nft".to_owned() })).unwrap();
    let names = |documents: &[Value]| {
        let list =
            documents[0].pointer("/spec/template/spec/initContainers").unwrap().as_array().unwrap().clone();
        list.iter().map(|container| container["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first.documents), ["valgate-lock", "valgate"]);
    let second = inject(first.documents, &loopback()).unwrap();
    assert_eq!(names(&second.documents), ["valgate"]);
}

#[test]
fn a_network_policy_leaves_open_what_nobody_asked_to_close() {
    let injected = inject(documents(DEPLOYMENT), &settings(Lock::NetworkPolicy)).unwrap();
    let policy = injected.documents.last().unwrap();
    assert_eq!(policy["metadata"], json!({ "name": "orders-only-through-valgate", "namespace": "shop" }));
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], json!({ "app": "orders" }));
    let ports: Vec<_> =
        policy["spec"]["ingress"][0]["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect();
    assert_eq!(ports, [8081, 8443, 9090]);
}

#[test]
fn every_container_that_serves_a_guarded_port_moves_to_loopback() {
    let pod = |spec: Value| json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": spec });
    let container = |name: &str, port: u16| json!({ "name": name, "ports": [{ "containerPort": port }] });
    let settings = Settings { app_ports: vec![8080, 9000, 7000], ..loopback() };
    let mut early = container("early", 7000);
    early["restartPolicy"] = json!("Always");
    let spec = json!({
        "initContainers": [early, { "name": "prepare" }],
        "containers": [container("a", 8080), container("b", 9000), { "name": "other", "env": null }],
    });
    let injected = inject(vec![pod(spec)], &settings).unwrap();
    let spec = &injected.documents[0]["spec"];
    let told = json!([{ "name": "HOST", "value": "127.0.0.1" }]);
    assert_eq!(spec["containers"][0]["env"], told);
    assert_eq!(spec["containers"][1]["env"], told);
    assert_eq!(spec["containers"][2]["env"], Value::Null);
    let names = spec["initContainers"].as_array().unwrap().iter().map(|container| &container["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["valgate", "early", "prepare"]);
    assert_eq!(spec["initContainers"][1]["env"], told);
    assert_eq!(spec["initContainers"][2].get("env"), None);
    assert!(
        injected.notes[1].contains("on loopback only, in a, b, early; HOST=127.0.0.1"),
        "{:?}",
        injected.notes
    );

    let datagrams = json!({ "name": "c", "ports": [{ "containerPort": 9000, "protocol": "UDP" }] });
    let refused = [
        (json!({ "containers": [container("a", 8080), { "name": "b" }] }), "(a, b) serves ports 9000, 7000?"),
        // Who declares it for something else may not be who serves it.
        (
            json!({ "containers": [container("a", 8080), container("b", 7000), datagrams] }),
            "serves port 9000?",
        ),
    ];
    for (spec, expected) in refused {
        let mistake = inject(vec![pod(spec)], &settings).unwrap_err().to_string();
        assert!(mistake.contains(expected), "{mistake}");
    }
}

#[test]
fn an_argument_never_replaces_those_of_the_image() {
    let settings = settings(Lock::Loopback(Bind::Argument("--host=127.0.0.1".to_owned())));
    let injected = |container: Value| {
        let pod =
            json!({ "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": [container] } });
        inject(vec![pod], &settings)
            .map(|injected| injected.documents[0]["spec"]["containers"][0]["args"].clone())
    };
    for without in [json!({ "name": "a" }), json!({ "name": "a", "args": [], "command": null })] {
        let mistake = injected(without).unwrap_err();
        assert_eq!(mistake.place, "Pod p, container a");
        assert!(mistake.what.contains("would replace the arguments of its image; write those"), "{mistake}");
    }
    let with_args = json!({ "name": "a", "args": ["serve"] });
    assert_eq!(injected(with_args), Ok(json!(["serve", "--host=127.0.0.1"])));
    let with_command = json!({ "name": "a", "command": ["serve"] });
    assert_eq!(injected(with_command), Ok(json!(["--host=127.0.0.1"])));
    let odd = injected(json!({ "name": "a", "args": "serve", "command": ["serve"] })).unwrap_err();
    assert_eq!(odd.to_string(), "Pod p, container a: `args` is not a list");
}

#[test]
fn what_listens_everywhere_is_not_taken_for_loopback() {
    let lock = |env: Option<&str>, argument: Option<&str>| {
        Settings::try_from(Choices {
            app_ports: vec![8080],
            lock: Some(LockKind::Loopback),
            bind_env: env.map(str::to_owned),
            bind_arg: argument.map(str::to_owned),
            ..Choices::default()
        })
    };
    let everywhere = [
        "0.0.0.0",
        "::",
        "[::]",
        "*",
        "0.0.0.0:8080",
        "[::]:8080",
        ":::8080",
        "*:8080",
        ":8080",
        "0:0:0:0:0:0:0:0",
        "::ffff:0.0.0.0",
        "http://0.0.0.0:8080",
        "http://+:8080",
        "http://*:80/",
        "tcp://[::]:8080",
        "127.0.0.1,::",
    ];
    for value in everywhere {
        let refused = lock(Some(&format!("HOST={value}")), None).unwrap_err();
        assert!(refused.contains("listen on every address") && refused.contains(value), "{refused}");
        for argument in [format!("--host={value}"), value.to_owned(), format!("--bind {value}")] {
            assert!(lock(None, Some(&argument)).is_err(), "{argument}");
        }
    }
    assert!(lock(None, Some("-b0.0.0.0:8080")).is_err());
    for empty in ["HOST=", "=127.0.0.1", "HOST"] {
        assert!(lock(Some(empty), None).unwrap_err().ends_with("is not NAME=VALUE"), "{empty}");
    }
    let loopback = [
        "127.0.0.1",
        "::1",
        "[::1]:8080",
        "localhost:8080",
        "http://127.0.0.1:8080/",
        "false",
        "0",
        "unix:/run/a",
    ];
    for value in loopback {
        assert!(lock(Some(&format!("HOST={value}")), None).is_ok(), "{value}");
        assert!(lock(None, Some(&format!("--host={value}"))).is_ok(), "{value}");
    }
}

#[test]
fn a_lock_never_closes_the_gateway_itself() {
    let deployment = || documents(DEPLOYMENT);
    let refused = |documents, settings: &Settings| inject(documents, settings).unwrap_err().to_string();
    let nftables = settings(Lock::Nftables { image: "nft".to_owned() });
    for port in [8443, 8081] {
        let mistake = refused(deployment(), &Settings { app_ports: vec![8080, port], ..nftables.clone() });
        assert!(mistake.starts_with(&format!("Deployment orders: port {port} cannot be both")), "{mistake}");
    }
    let mistake = refused(deployment(), &Settings { health_port: 8443, ..nftables.clone() });
    assert!(mistake.contains("clients and probes at the same port 8443"), "{mistake}");

    let with_sidecar = |protocol: &str| {
        let mut documents = deployment();
        let ports = json!([{ "containerPort": 8443, "protocol": protocol }]);
        let mesh = json!([{ "name": "mesh", "restartPolicy": "Always", "ports": ports }]);
        documents[0]["spec"]["template"]["spec"]["initContainers"] = mesh;
        documents
    };
    let mistake = refused(with_sidecar("TCP"), &nftables);
    assert!(mistake.starts_with("Deployment orders: container mesh has port 8443 already"), "{mistake}");
    assert!(inject(with_sidecar("UDP"), &nftables).is_ok());
    // The sidecar of an earlier injection is no other.
    let once = inject(deployment(), &nftables).unwrap().documents;
    assert!(inject(once, &nftables).is_ok());
}

#[test]
fn probes_of_ports_that_nobody_guards_stay_as_they_are() {
    let container = json!({
        "name": "a",
        "ports": [{ "containerPort": 8080 }, { "name": "rpc", "containerPort": 9090 }],
        "startupProbe": { "grpc": { "port": 9090, "service": "a" } },
        "readinessProbe": { "httpGet": { "port": "rpc", "scheme": "HTTPS" } },
        "livenessProbe": { "httpGet": { "port": "unheard-of", "scheme": "HTTPS" } },
    });
    let pod = json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": [container] } });
    let injected = inject(vec![pod], &loopback()).unwrap();
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(injected.documents[0]["spec"]["containers"][0][probe], container[probe], "{probe}");
    }
}

#[test]
fn the_application_serves_on_until_the_cluster_has_heard_of_the_end() {
    let serves_on = json!({ "preStop": { "sleep": { "seconds": 5 } } });
    let injected = |spec: Value, app_ports: Vec<u16>| {
        let pod = json!({ "kind": "Pod", "metadata": { "name": "p" }, "spec": spec });
        let injected = inject(vec![pod], &Settings { app_ports, lock: Lock::Open, ..loopback() }).unwrap();
        (injected.documents[0]["spec"].clone(), injected.notes.join("\n"))
    };
    let two = json!([
        { "name": "a", "ports": [{ "containerPort": 8080 }], "lifecycle": null },
        { "name": "b" },
    ]);
    let (spec, notes) = injected(json!({ "containers": two }), vec![8080]);
    assert_eq!(spec["containers"][0]["lifecycle"], serves_on);
    assert_eq!(spec["containers"][1].get("lifecycle"), None);
    assert_eq!(spec["terminationGracePeriodSeconds"], 45);
    assert!(!notes.contains("terminationGracePeriodSeconds"), "{notes}");

    // What the application does already is its own affair; nobody can tell who else serves a port.
    let own = json!({ "preStop": { "exec": { "command": ["drain"] } } });
    let own =
        json!([{ "name": "a", "ports": [{ "containerPort": 8080 }], "lifecycle": own }, { "name": "b" }]);
    let spec = json!({ "containers": own, "terminationGracePeriodSeconds": 20 });
    let (spec, notes) = injected(spec, vec![8080, 9000]);
    assert_eq!(spec["containers"], own);
    assert!(
        notes.contains("no container declares port 9000; give the one that serves it a preStop"),
        "{notes}"
    );
    assert!(notes.contains("terminationGracePeriodSeconds is 45 now, no longer 20"), "{notes}");

    let spec = json!({ "containers": [{ "name": "a" }], "terminationGracePeriodSeconds": 90 });
    assert_eq!(injected(spec, vec![8080]).0["terminationGracePeriodSeconds"], 90);

    // As a Job makes it.
    let (spec, _) =
        injected(json!({ "containers": [{ "name": "a" }], "restartPolicy": "Never" }), vec![8080]);
    assert_eq!(spec["containers"][0].get("lifecycle"), None);
    assert_eq!(spec["terminationGracePeriodSeconds"], 45);
}

#[test]
fn every_kind_of_workload_is_found() {
    let spec = json!({ "containers": [{ "name": "a", "image": "a" }] });
    let template = json!({ "metadata": { "labels": { "app": "a" } }, "spec": spec });
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"] {
        let document = json!({ "kind": kind, "metadata": { "name": "a" }, "spec": { "template": template } });
        let injected = inject(vec![document], &loopback()).unwrap();
        let name = injected.documents[0].pointer("/spec/template/spec/initContainers/0/name");
        assert_eq!(name, Some(&json!("valgate")), "{kind}");
    }
    let job = json!({ "spec": { "template": template } });
    let cron = json!({ "kind": "CronJob", "metadata": { "name": "a" }, "spec": { "jobTemplate": job } });
    let injected = inject(vec![cron], &loopback()).unwrap();
    let path = "/spec/jobTemplate/spec/template/spec/initContainers/0/name";
    assert_eq!(injected.documents[0].pointer(path), Some(&json!("valgate")));
    let pod = json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": spec });
    let injected = inject(vec![pod], &loopback()).unwrap();
    assert_eq!(injected.documents[0].pointer("/spec/initContainers/0/name"), Some(&json!("valgate")));
}

#[test]
fn what_cannot_be_guarded_is_refused_with_the_place_and_a_remedy() {
    let pod = |spec: Value| json!({ "kind": "Pod", "metadata": { "name": "a" }, "spec": spec });
    let container = |more: Value| {
        let mut container =
            json!({ "name": "a", "image": "a", "ports": [{ "name": "http", "containerPort": 8080 }] });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod(json!({ "containers": [container] }))
    };
    let two = json!({ "containers": [{ "name": "a" }, { "name": "b" }] });
    let cases = [
        (json!({ "kind": "ConfigMap" }), "input: holds no Deployment"),
        (pod(json!({ "hostNetwork": true, "containers": [] })), "Pod a: uses the network of its node"),
        (
            container(json!({ "ports": [{ "containerPort": 8443 }] })),
            "Pod a: container a has port 8443 already",
        ),
        (
            container(json!({ "livenessProbe": { "grpc": { "port": 8080 } } })),
            "Pod a, container a, livenessProbe: asks by gRPC",
        ),
        (
            container(json!({ "readinessProbe": { "httpGet": { "port": "http", "scheme": "HTTPS" } } })),
            "Pod a, container a, readinessProbe: asks by HTTPS",
        ),
        (pod(two), "Pod a: which of its containers (a, b) serves port 8080?"),
        (
            pod(json!({ "containers": [{ "name": "a" }], "volumes": 3 })),
            "Pod a: `volumes` of the pod is not a list",
        ),
    ];
    for (document, expected) in cases {
        let mistake = inject(vec![document], &loopback()).unwrap_err().to_string();
        assert!(mistake.starts_with(expected), "{mistake}");
    }
    let mistake = inject(vec![container(json!({}))], &settings(Lock::NetworkPolicy)).unwrap_err().to_string();
    assert!(mistake.starts_with("Pod a: its pods have no labels"), "{mistake}");
}

#[test]
fn no_lock_no_sidecar() {
    let choices = |change: fn(&mut Choices)| {
        let mut choices = Choices { app_ports: vec![8080], ..Choices::default() };
        change(&mut choices);
        Settings::try_from(choices).map(|settings| settings.lock)
    };
    let refused = choices(|_| ()).unwrap_err();
    assert!(refused.starts_with("a sidecar that can be walked around protects nothing"), "{refused}");
    assert_eq!(choices(|choices| choices.insecure_leave_open = true), Ok(Lock::Open));
    assert!(choices(|choices| choices.lock = Some(LockKind::Loopback)).is_err());
    assert!(choices(|choices| choices.lock = Some(LockKind::Nftables)).is_err());
    let both = choices(|choices| {
        choices.lock = Some(LockKind::NetworkPolicy);
        choices.insecure_leave_open = true;
    });
    assert!(both.is_err());
}

#[test]
fn the_kustomize_component_has_the_same_sidecar() {
    for kind in ["deployment", "job"] {
        let path = format!("{}/deploy/kubernetes/components/sidecar/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
        let component = documents(&std::fs::read_to_string(path).unwrap());
        let mut expected = documents(DEPLOYMENT);
        let settings = Settings {
            image: "valgate".to_owned(),
            tls_secret: Some("valgate-tls".to_owned()),
            ..loopback()
        };
        expected = inject(expected, &settings).unwrap().documents;
        let of = |document: &Value| {
            let pod = document.pointer("/spec/template/spec").unwrap();
            let mut sidecar = pod["initContainers"][0].clone();
            sidecar.as_object_mut().unwrap().remove("args");
            (sidecar, pod["volumes"].clone())
        };
        assert_eq!(of(&component[0]), of(&expected[0]));
    }
}
