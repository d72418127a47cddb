"""The configuration: defaults, overrides, and every refusal in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from config.settings import Settings, load, read_yaml
from model.core.errors import ConfigError
from model.features.definitions import CLOSE_FEATURES, LOG_RETURN_FEATURES
from tests.support.config_files import refusal, write


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any, str | None]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{path}{name}", None, field.description
            yield from leaves(field.annotation, f"{path}{name}.")
        else:
            yield f"{path}{name}", field.default, field.description


def flat(raw: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def test_config_yaml_holds_every_setting_at_its_default(repository: Path) -> None:
    path = repository / "config" / "config.yaml"
    assert load(path, {}).model_dump() == Settings().model_dump()
    written = {key for key, _ in flat(yaml.safe_load(path.read_text(encoding="utf-8")))}
    known = {key for key, default, _ in leaves(Settings) if default is not None}
    optional = {key for key, default, _ in leaves(Settings) if default is None}
    assert known <= written
    assert written <= known | optional
    # A password has no place in the file, and sections are not leaves.
    sections = {key for key in optional if any(other.startswith(f"{key}.") for other in written)}
    assert optional - sections - written == {"mqtt.password", "http.password"}


def test_every_setting_is_described() -> None:
    assert [key for key, _, description in leaves(Settings) if not description] == []


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}).model_dump() == Settings().model_dump()
    assert load(write(tmp_path, "mqtt:\n"), {}).mqtt.port == 1883


def test_the_environment_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "mqtt: {port: 1}\ntrading: {symbols: [A/B, C/D]}\n")
    settings = load(
        path,
        {
            "CANDLECAST__MQTT__PORT": "2",
            "CANDLECAST__TRADING__SYMBOL": "E/F",
            "CANDLECAST__MODEL__LSTM_UNITS": "[8, 4]",
            "CANDLECAST__EXCHANGE__ENDPOINT__REST": "http://127.0.0.1:1/",
            "CANDLECAST__MQTT__PASSWORD": "0123",
            "CANDLECAST__MQTT__VERSION": "5",
            "CANDLECAST__MODEL__LEARNING_RATE": "1e-4",
        },
    )
    assert settings.mqtt.port == 2
    assert settings.trading.symbols == ("E/F",)
    assert settings.model.lstm_units == (8, 4)
    assert settings.exchange.endpoint.rest == "http://127.0.0.1:1"
    assert settings.mqtt.read_password() == "0123"
    assert settings.mqtt.version == "5"
    assert settings.model.learning_rate == 1e-4


def test_the_reference_classes_see_the_overrides_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "model: {epochs: 3, learning_rate: 1e-4}\nstrategy: {anything: 1}\n")
    monkeypatch.setenv("CANDLECAST__MODEL__EPOCHS", "4")
    assert read_yaml(path) == {
        "model": {"epochs": 4, "learning_rate": 1e-4},
        "strategy": {"anything": 1},
    }


def test_a_single_symbol_becomes_a_list_of_one(tmp_path: Path) -> None:
    path = write(tmp_path, "trading: {symbol: 'BTC/USDT:USDT'}\n")
    assert load(path, {}).trading.symbols == ("BTC/USDT:USDT",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tradng: {}", "tradng: unknown key; did you mean trading?"),
        ("trading: {timefram: 1m}", "trading.timefram: unknown key; did you mean timeframe?"),
        ("zebra: 1", "zebra: unknown key; known here: exchange, trading, model"),
        ("trading: {timeframe: 1M}", "trading.timeframe: '1M' is not a timeframe of fixed"),
        ("trading: {symbols: BTC/USDT}", "'BTC/USDT' must be a list, in brackets"),
        ("mqtt: {passwd: x}", "mqtt.passwd: unknown key; did you mean password_file?"),
        ("trading: {symbols: []}", "trading.symbols: [] must have at least 1 item"),
        ("trading: {symbols: [BTCUSDT]}", "trading.symbols[0]: 'BTCUSDT' is not of the form BASE"),
        ("trading: {symbols: [BTCUSDT]}", "did you mean BTC/USDT?"),
        ("trading: {symbols: [btc/usdt]}", "'btc/usdt' is not of the form BASE/QUOTE"),
        ("trading: {symbols: [ETH/USDT, BTC-USDT]}", "trading.symbols[1]: 'BTC-USDT' is not"),
        ("trading: {symbol: btcusdt}", "did you mean BTC/USDT?"),
        ("trading: {symbols: ['btc/usdt:usdt']}", "did you mean BTC/USDT:USDT?"),
        ("trading: {symbols: [A/B, A/B]}", "more than once"),
        ("mqtt: {host: '[::1]'}", "mqtt.host: '[::1]' is an address without brackets"),
        ("mqtt: {host: 'broker:1883'}", "mqtt.host: 'broker:1883' is a name or an address without"),
        ("mqtt: {host: 'mqtt://broker'}", "without a scheme or a path"),
        ("http: {host: '[::1]'}", "http.host: '[::1]' is an address without brackets"),
        ("http: {names: ['pages:80']}", "http.names[0]: 'pages:80' is not of the form"),
        ("exchange: {endpoint: {rest: 'http://::1:80'}}", "an IPv6 address in brackets"),
        (
            "trading: {symbols: ['A/B:C', A/B-C]}",
            "A/B:C and A/B-C, which would share one MQTT topic",
        ),
        ("trading: {symbol: A/B, symbols: [A/B]}", "has both symbol and symbols"),
        ("trading: 5", "trading: must be a section"),
        ("model: {target: price}", "'price' is not allowed; allowed: 'close' or 'log_return'"),
        ("model: {features: [close, rsi]}", "model.features[1]: 'rsi' is not a feature; allowed:"),
        ("model: {epochs: 0}", "model.epochs: 0 must be greater than or equal to 1"),
        ("model: {epochs: 2.5}", "model.epochs: 2.5 must be a valid integer"),
        ("model: {epochs: yes}", "model.epochs: True is a boolean"),
        ("model: {train_split: 0.9}", "leaves no rows to test on"),
        ("model: {learning_rate: .nan}", "model.learning_rate: nan must be"),
        ("indicators: {macd_fast: 26}", "macd_fast 26 must be below macd_slow 26"),
        (
            "inference: {forming: sometimes}",
            "inference.forming: 'sometimes' must be a valid",
        ),
        ("mqtt: {port: 70000}", "mqtt.port: 70000 must be less than or equal to 65535"),
        ("mqtt: {version: 4}", "mqtt.version: '4' is not allowed; allowed: '5' or '3.1.1'"),
        ("mqtt: {instance: a/b}", "mqtt.instance: 'a/b' is one level of an MQTT topic"),
        ("accuracy: {window: 100}", "min_n 200 must not exceed window 100"),
        ("calibration: {level: 0.99}", "level: 0.99 must be less than or equal to 0.98"),
        ("signal: {threshold: 1}", "signal.threshold: 1 is neither auto nor a return above 0"),
        ("signal: {threshold: often}", "signal.threshold: 'often' is neither auto nor a return"),
        ("signal: {threshold: yes}", "signal.threshold: True is a boolean"),
        ("exchange: {name: Binance US}", "exchange.name: 'Binance US' is not of the form"),
        ("exchange: {endpoint: {rest: 'ws://h'}}", "must be http or https://host:port"),
        ("exchange: {endpoint: {ws: 'ws://h/path'}}", "must be ws or wss://host:port"),
        ("exchange: {endpoint: {ws: 'ws://h:99999'}}", "must be ws or wss://host:port"),
        ("a: [", "line 1, column 5: not valid YAML"),
        ("mqtt: {}\nmqtt: {}", "line 2, column 1: not valid YAML: key 'mqtt' is written twice"),
        ("- a", "must be a mapping of sections"),
        ("mqtt: {[a]: 1}", "line 1, column 8: not valid YAML: a key must be text"),
        ("? {a: 1}\n: 2", "line 1, column 3: not valid YAML: a key must be text"),
        ("mqtt: " + "[" * 20_000, "not valid YAML"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, expected: str
) -> None:
    message = refusal(tmp_path, text)
    assert expected in message
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "candlecast.yaml"))


def test_each_finding_has_its_line(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "mqtt: {port: 0}\nmodel: {epochs: 0}\nfoo: 1\n").splitlines()
    assert len(lines) == 3


def test_recursive_lists_are_refused_in_one_short_line(tmp_path: Path) -> None:
    names = [f"l{level}" for level in range(40)]
    levels = [
        f"{name}: &{name} [{f'*{before}, *{before}' if before else 'A/B'}]"
        for before, name in zip([None, *names], names, strict=False)
    ]
    text = "\n".join([*levels, f"trading: {{symbols: [*{names[-1]}]}}"])
    assert "trading.symbols[0]: [[[" in refusal(tmp_path, text)


def test_a_variable_with_deeply_nested_brackets_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with pytest.raises(ConfigError, match="CANDLECAST__TRADING__SYMBOLS: not a valid value"):
        load(path, {"CANDLECAST__TRADING__SYMBOLS": "[" * 20_000})


def test_a_refused_variable_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, "", {"CANDLECAST__MQTT__PORT": "x"})
    assert message == (
        "CANDLECAST__MQTT__PORT: mqtt.port: 'x' must be a valid integer, "
        "unable to parse string as an integer"
    )
    message = refusal(tmp_path, "", {"CANDLECAST__MQTT__PROT": "1"})
    assert message == "CANDLECAST__MQTT__PROT: there is no setting mqtt.prot; did you mean port?"
    assert "not a valid value" in refusal(tmp_path, "", {"CANDLECAST__TRADING__SYMBOLS": "["})


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("mqtt: {password: hunter2}", {}),
        ("mqtt: {passwrd: hunter2}", {}),
        ("mqtt: hunter2", {}),
        ("http: {username: me, password: hunter2}", {}),
        ("http: {username: ''}", {"CANDLECAST__HTTP__PASSWORD": "hunter2"}),
        ("exchange: {endpoint: {rest: 'http://me:hunter2@host'}}", {}),
        ("mqtt: {password_file: /x}", {"CANDLECAST__MQTT__PASSWORD": "hunter2"}),
        ("mqtt: {host: ''}", {"CANDLECAST__MQTT__PASSWORD": "hunter2"}),
    ],
)
def test_no_refusal_prints_a_secret(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    assert "hunter2" not in refusal(tmp_path, text, environ)


def test_no_dump_prints_a_secret(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""), {"CANDLECAST__MQTT__PASSWORD": "hunter2"})
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http: {host: 0.0.0.0}", "http: host 0.0.0.0 can be reached from other machines"),
        ("http: {host: '::'}", "http: host :: can be reached from other machines"),
        (
            "http: {host: 192.0.2.7, username: me, password_file: x}",
            "set username, password_file and tls, or host 127.0.0.1",
        ),
        (
            "http: {host: 192.0.2.7, tls: {certificate_file: x, key_file: x}}",
            "set username, password_file and tls, or host 127.0.0.1",
        ),
        ("http: {username: me}", "http: needs username and one of password and password_file"),
        ("http: {password_file: x}", "http: needs username and one of"),
        ("http: {tls: {key_file: x}}", "http.tls: needs certificate_file and key_file"),
        ("mqtt: {tls: {certificate_file: x}}", "mqtt.tls: needs certificate_file and key_file"),
        (
            "mqtt: {tls: {certificate_file: x, key_file: x}}",
            "mqtt.tls: has a certificate_file but no ca_file",
        ),
    ],
)
def test_an_incomplete_login_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_server_with_login_and_tls_may_be_reached(tmp_path: Path) -> None:
    tls = "tls: {certificate_file: cert.pem, key_file: key.pem}"
    text = f"http: {{host: 0.0.0.0, username: me, password_file: secret, {tls}}}"
    http = load(write(tmp_path, text), {}).http
    (tmp_path / "secret").write_text("hunter2\n", encoding="utf-8")
    assert http.read_login() == ("me", "hunter2")
    assert http.tls.certificate_file == tmp_path / "cert.pem"


def test_files_are_found_among_credentials_and_beside_the_configuration(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "secret").touch()
    path = write(
        tmp_path,
        "mqtt: {password_file: secret, tls: {ca_file: system}}\n"
        "http: {tls: {certificate_file: c.pem, key_file: /k.pem}}\n",
    )
    settings = load(path, {"CREDENTIALS_DIRECTORY": str(credentials)})
    assert settings.mqtt.password_file == credentials / "secret"
    assert settings.mqtt.tls.ca_file == Path("system")
    assert settings.http.tls.certificate_file == tmp_path / "c.pem"
    assert settings.http.tls.key_file == Path("/k.pem")
    assert load(path, {}).mqtt.password_file == tmp_path / "secret"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\n", "it is empty"), (b"\xff", "not UTF-8 text"), (b"x" * 70_000, "it is too large")],
)
def test_a_password_file_that_holds_no_password(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "secret").write_bytes(content)
    settings = load(write(tmp_path, "mqtt: {password_file: secret}"), {})
    with pytest.raises(ConfigError, match=f"mqtt.password_file: cannot read .*: {reason}"):
        settings.mqtt.read_password()


def test_an_oversized_configuration_is_refused(tmp_path: Path) -> None:
    assert "has more than 1048576 bytes" in refusal(tmp_path, "# comment\n" * 110_000)


def test_the_password_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    settings = load(write(tmp_path, f"mqtt: {{password_file: {secret}}}"), {})
    with pytest.raises(ConfigError, match=r"password_file: cannot read .*No such file"):
        settings.mqtt.read_password()
    secret.write_text("hunter2\n", encoding="utf-8")
    assert settings.mqtt.read_password() == "hunter2"


def test_a_missing_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; name one with --config, or copy .*yaml"):
        load(tmp_path / "none.yaml", {})


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read it: Is a directory"):
        load(tmp_path, {})


def test_state_never_depends_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    relative = Path(path.name)
    assert load(relative, {}).state_dir == tmp_path / "state"
    systemd = {"STATE_DIRECTORY": "/var/lib/candlecast:/var/lib/other"}
    assert load(relative, systemd).state_dir == Path("/var/lib/candlecast")
    write(tmp_path, "paths: {state: elsewhere}")
    assert load(relative, systemd).state_dir == tmp_path / "elsewhere"
    write(tmp_path, "paths: {state: /absolute}")
    assert load(relative, systemd).state_dir == Path("/absolute")


def test_the_threshold_is_a_return_or_auto(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}).signal.threshold == "auto"
    path = write(tmp_path, "signal: {threshold: 0.001}")
    assert load(path, {}).signal.threshold == 0.001
    variable = "CANDLECAST__SIGNAL__THRESHOLD"
    assert load(path, {variable: "auto"}).signal.threshold == "auto"
    assert load(path, {variable: "0.002"}).signal.threshold == 0.002


def test_features_follow_the_target(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}).model.feature_names == LOG_RETURN_FEATURES
    close = load(write(tmp_path, "model: {target: close}"), {})
    assert close.model.feature_names == CLOSE_FEATURES
    own = load(write(tmp_path, "model: {features: [close, macd]}"), {})
    assert own.model.feature_names == ("close", "macd")
