use serde_json::{Value, json};

use super::settings::Choices;
use super::*;

const DEPLOYMENT: &str = r#"
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

fn documents(text: &str) -> Vec<Value> {
    serde_yaml::from_multiple(text).unwrap()
}

fn settings(lock: Lock) -> Settings {
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

fn loopback() -> Settings {
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

/// The body that an API server sends, shortened by fields that nobody here reads.
#[allow(clippy::needless_pass_by_value, reason = "so that a test can write `json!` in place")]
fn asked(object: Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": object["kind"] },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "operation": "CREATE",
            "namespace": "shop",
            "object": object,
            "oldObject": null,
            "dryRun": false,
        },
    });
    review.to_string().into_bytes()
}

fn patched(object: &Value, response: &Value) -> Value {
    use base64::Engine as _;
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let mut after = object.clone();
    for change in patch {
        assert_eq!(change["op"], "add");
        let name = change["path"].as_str().unwrap().strip_prefix("/spec/").unwrap();
        after["spec"][name] = change["value"].clone();
    }
    after
}

#[test]
fn a_webhook_does_to_a_pod_what_the_command_does() {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "orders-7d4b9c-",
            "labels": { "app": "orders" },
            "annotations": {
                "valgate/inject": "true",
                "valgate/app-port": "8080",
                "valgate/lock": "loopback",
                "valgate/bind-env": "HOST=127.0.0.1",
                "valgate/image": "valgate:1",
                "valgate/tls-secret": "tls",
                "prometheus.io/scrape": "true",
            },
        },
        "spec": documents(DEPLOYMENT)[0].pointer("/spec/template/spec").unwrap(),
    });
    let response = review(&asked(pod.clone())).unwrap()["response"].clone();
    assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(response["allowed"], true);
    let expected = inject(vec![pod.clone()], &loopback()).unwrap().documents;
    assert_eq!([patched(&pod, &response)], expected.as_slice());
    // The API server asks again after other webhooks have run.
    let again = review(&asked(expected[0].clone())).unwrap()["response"].clone();
    assert_eq!([patched(&expected[0], &again)], expected.as_slice());
}

#[test]
fn a_webhook_points_services_and_lets_pass_what_does_not_ask() {
    let service = |annotations: Value| {
        json!({
            "kind": "Service",
            "metadata": { "name": "orders", "annotations": annotations },
            "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] },
        })
    };
    let asks = service(json!({ "valgate/app-port": "8080" }));
    let response = review(&asked(asks.clone())).unwrap()["response"].clone();
    assert_eq!(patched(&asks, &response)["spec"]["ports"][0]["targetPort"], "valgate");

    for other in
        [service(json!({})), json!({ "kind": "Pod", "metadata": {} }), json!({ "kind": "Secret" }), json!(3)]
    {
        let response = review(&asked(other)).unwrap()["response"].clone();
        assert_eq!(response["allowed"], true);
        assert_eq!(response.get("patch"), None);
    }
}

#[test]
fn a_pod_that_asks_and_cannot_have_it_does_not_run() {
    let cases = [
        (json!({}), "app-port is missing"),
        (json!({ "valgate/app-port": "8080" }), "a sidecar that can be walked around"),
        (json!({ "valgate/app-port": "http" }), "is not a list of ports"),
        (
            json!({ "valgate/app-port": "8080", "valgate/lock": "network-policy" }),
            "cannot make a NetworkPolicy",
        ),
        (json!({ "valgate/app-prot": "8080" }), "annotation valgate/app-prot is not known"),
    ];
    for (mut annotations, expected) in cases {
        annotations["valgate/inject"] = json!("true");
        let pod = json!({
            "kind": "Pod",
            "metadata": { "name": "a", "annotations": annotations },
            "spec": { "containers": [{ "name": "a" }] },
        });
        let response = review(&asked(pod)).unwrap()["response"].clone();
        assert_eq!(response["allowed"], false);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_body_that_is_no_review_is_refused() {
    for body in
        ["", "{}", "[]", r#"{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"1","object":{}}}"#]
    {
        assert_eq!(review(body.as_bytes()), Err(Malformed), "{body}");
    }
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
