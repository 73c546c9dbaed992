import { render } from "preact";
import { App } from "./app.tsx";
import { wanted } from "./access.ts";
import { watch } from "./live/server.ts";
import { apply } from "./theme.ts";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";

apply();
if (wanted.value === null) watch();
const root = document.getElementById("app");
if (root) render(<App />, root);
