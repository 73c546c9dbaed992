import { render } from "preact";
import { apply } from "../theme.ts";
import { Runs } from "./app.tsx";
import { fileSource } from "./file_source.ts";
import { liveSource } from "./live_source.ts";
import "../styles/tokens.css";
import "../styles/base.css";
import "../styles/parts.css";
import "./runs.css";

apply();
const root = document.getElementById("app");
if (root) render(<Runs source={fileSource() ?? liveSource()} />, root);
