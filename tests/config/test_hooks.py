"""What an operator decides about the webhooks of others."""

from __future__ import annotations

from tests.config.test_config import ConfigCase

SECRET = "secrets: [hunter2hunter2]"


class HooksTests(ConfigCase):
    def test_taken(self) -> None:
        """A hook has a preset and secrets, and may say what its deliveries are for."""
        hook = self.load(f"hooks: {{code: {{preset: github, {SECRET}, operation: built}}}}").hooks["code"]
        self.assertEqual((hook.preset, hook.operation, hook.secrets), ("github", "built", ["hunter2hunter2"]))
        self.assertNotIn("hunter2", repr(hook))

    def test_refused(self) -> None:
        """What cannot be kept is refused by its key, and no secret is repeated."""
        for text, key in (
            ("code: {preset: github}", "hooks.code.secrets"),
            (f"code: {{{SECRET}}}", "hooks.code.preset"),
            (f"code: {{preset: gitlab, {SECRET}}}", "hooks.code.preset"),
            ("code: {preset: github, secrets: []}", "hooks.code.secrets"),
            ("code: {preset: github, secrets: ['']}", "hooks.code.secrets.0"),
            (f"code: {{preset: standard_webhooks, {SECRET}}}", "hooks.code.secrets.0"),
            (f"code: {{preset: github, {SECRET}, tolerance_seconds: 5}}", "hooks.code.tolerance_seconds"),
            (f"code: {{preset: github, {SECRET}, endpoint: nowhere}}", "hooks.code.endpoint"),
            (f"code: {{preset: twilio, {SECRET}}}", "hooks.code.url"),
            (f"code: {{preset: twilio, {SECRET}, url: 'ftp://a.test'}}", "hooks.code.url"),
            (f"code: {{preset: twilio, {SECRET}, url: 'https://a.test/hooks/code?a=b'}}", "hooks.code.url"),
            (f"code: {{preset: github, {SECRET}, url: 'https://a.test/hooks/code'}}", "hooks.code.url"),
            (f"'a/b': {{preset: github, {SECRET}}}", "hooks"),
        ):
            complaint = self.complaint(f"hooks: {{{text}}}")
            self.assertEqual(complaint.key, key, text)
            self.assertNotIn("hunter2", str(complaint))
        sidecar = "proxy: {sidecar: {enabled: true, upstream: 'http://a.test'}}\n"
        self.assertEqual(self.complaint(f"{sidecar}hooks: {{a: {{preset: github, {SECRET}}}}}").key, "hooks")
