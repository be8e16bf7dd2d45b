//! An ordinary client: reqwest and jsonwebtoken.

use std::sync::Once;

use catalog_sync::simulator::{Simulator, State};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

pub(crate) const KEY: &str = "SIMULATOR1";

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    /// The code of the only error.
    pub(crate) fn code(&self) -> &str {
        assert_eq!(
            self.body["errors"].as_array().map(Vec::len),
            Some(1),
            "{}",
            self.text
        );
        self.body["errors"][0]["code"].as_str().unwrap()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn next(&self) -> Option<&str> {
        self.body["links"]["next"].as_str()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}"))
            .to_str()
            .unwrap()
    }
}

pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// With the first key of the first team.
    pub(crate) fn of(simulator: &Simulator) -> Self {
        let key_id = simulator.state().teams[0].keys[0].key_id.clone();
        Self::with_key(simulator, &key_id)
    }

    pub(crate) fn with_key(simulator: &Simulator, key_id: &str) -> Self {
        Self::with_token(simulator, Some(token(&simulator.state(), key_id)))
    }

    pub(crate) fn with_token(simulator: &Simulator, token: Option<String>) -> Self {
        let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = simulator.ca_pem() {
            builder = builder
                .add_root_certificate(reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
        }
        Self {
            http: builder.build().unwrap(),
            base: simulator.base_url().to_owned(),
            token,
        }
    }

    pub(crate) async fn try_get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        read(self.try_get(path).await.unwrap()).await
    }

    pub(crate) async fn good(&self, path: &str) -> Answer {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer
    }

    /// Every page of a listing, by its links.
    pub(crate) async fn pages(&self, path: &str) -> Vec<Answer> {
        let mut pages = vec![self.good(path).await];
        while let Some(next) = pages.last().unwrap().next().filter(|next| !next.is_empty()) {
            let next = self.good(next).await;
            pages.push(next);
            assert!(pages.len() <= 100, "{path} does not end");
        }
        pages
    }

    pub(crate) async fn all_ids(&self, path: &str) -> Vec<String> {
        self.pages(path)
            .await
            .iter()
            .flat_map(Answer::ids)
            .collect()
    }

    /// A request to the control API.
    pub(crate) async fn control(&self, method: &str, path: &str, body: Value) -> Answer {
        let url = format!("{}/_simulator/{path}", self.base);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        read(request.send().await.unwrap()).await
    }
}

async fn read(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_default();
    Answer {
        status,
        headers,
        text,
        body,
    }
}

pub(crate) fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
}

/// A token as the key's kind needs it.
pub(crate) fn token(state: &State, key_id: &str) -> String {
    let (team, key) = state.key(key_id).unwrap();
    let mut claims = good_claims();
    if key.individual {
        claims["sub"] = json!("user");
    } else {
        claims["iss"] = json!(team.issuer_id);
    }
    sign(&header(key_id), &claims, &key.private_key)
}

/// All but `iss` and `sub`.
pub(crate) fn good_claims() -> Value {
    json!({ "iat": now() - 60, "exp": now() + 540, "aud": "appstoreconnect-v1" })
}

pub(crate) fn header(key_id: &str) -> Header {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key_id.to_owned());
    header
}

pub(crate) fn sign(header: &Header, claims: &Value, private_key: &str) -> String {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another module of this binary may have been first.
        jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER
            .install_default()
            .ok();
    });
    let key = match header.alg {
        Algorithm::HS256 => EncodingKey::from_secret(private_key.as_bytes()),
        _ => EncodingKey::from_ec_pem(private_key.as_bytes()).unwrap(),
    };
    encode(header, claims, &key).unwrap()
}
