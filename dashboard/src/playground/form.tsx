import { useId } from "preact/hooks";
import { words } from "../numbers.ts";
import { type Draft, draftOf, type Fault, optionOf } from "./draft.ts";
import { type Field, type Member, within } from "./schema.ts";

interface Shown<F extends Field = Field> {
  readonly field: F;
  readonly draft: Draft;
  /** What the field is called, if it is a member or an item. */
  readonly name: string;
  readonly path: string;
  readonly faults: readonly Fault[];
  readonly onChange: (draft: Draft) => void;
}

type Of<K extends Field["is"]> = Extract<Field, { is: K }>;

/** A field, its label, what there is to know of it, and what is wrong with it. */
export function FieldOf(props: Shown) {
  const { field, name, path, faults } = props;
  const id = useId();
  const mine = faults.filter((fault) => fault.path === path);
  const notes = notesOf(field);
  const label = name || field.title || "value";
  const input = <Input {...props} id={id} label={label} about={`${id}-about`} wrong={mine.length > 0} />;
  const more = (
    <span id={`${id}-about`}>
      {notes ? <span class="about">{notes}</span> : null}
      {mine.map(({ text }) => <span key={text} class="fault" role="alert">{text}</span>)}
    </span>
  );
  const grouped = field.is === "object" || field.is === "list" || field.is === "tuple" || field.is === "variant";
  if (grouped) return <fieldset class={name ? "" : "whole"}>{name ? <legend>{label}</legend> : <legend class="unseen-text">{label}</legend>}{more}{input}</fieldset>;
  return <div class="one">{name ? <label for={id}>{label}</label> : <label class="unseen-text" for={id}>{label}</label>}{input}{more}</div>;
}

function notesOf(field: Field): string {
  return [field.description, hint(field)].filter(Boolean).join(" · ");
}

function hint(field: Field): string {
  const preset = field.preset === undefined ? "" : `default ${JSON.stringify(field.preset).slice(0, 80)}`;
  if (field.is === "number") return [field.whole ? "whole" : "", within(field.bounds), preset].filter(Boolean).join(", ");
  if (field.is === "text") return [field.hint, field.longest === null ? "" : `at most ${field.longest} characters`, preset].filter(Boolean).join(", ");
  return [field.is === "json" ? field.hint : "", preset].filter(Boolean).join(", ");
}

interface Entered {
  readonly id: string;
  readonly label: string;
  readonly about: string;
  readonly wrong: boolean;
}

function Input({ field, draft, id, label, about, wrong, onChange, ...rest }: Shown & Entered) {
  const named = { id, "aria-describedby": about, "aria-invalid": wrong };
  const text = draft.is === "words" ? draft.text : "";
  const write = (event: { currentTarget: { value: string } }): void => onChange({ is: "words", text: event.currentTarget.value });
  switch (field.is) {
    case "text": return <textarea class="field" rows={1} spellcheck={false} value={text} onInput={write} {...named} />;
    case "json": return <textarea class="field mono" rows={2} spellcheck={false} value={text} onInput={write} {...named} />;
    case "number": return <input class="field" inputMode={field.whole ? "numeric" : "decimal"} autocomplete="off" value={text} onInput={write} {...named} />;
    case "boolean": return <input type="checkbox" checked={draft.is === "flag" && draft.on} onChange={(event) => onChange({ is: "flag", on: event.currentTarget.checked })} {...named} />;
    case "fixed": return <output class="mono" {...named}>{JSON.stringify(field.value)}</output>;
    case "choice": return (
      <select class="field" value={String(draft.is === "place" ? draft.place : 0)} onChange={(event) => onChange({ is: "place", place: Number(event.currentTarget.value) })} {...named}>
        {field.values.map((value, place) => <option key={place} value={String(place)}>{typeof value === "string" ? value : JSON.stringify(value)}</option>)}
      </select>
    );
    case "object": return <Members field={field} draft={draft} label={label} onChange={onChange} {...rest} />;
    case "list": return <Items field={field} draft={draft} label={label} onChange={onChange} {...rest} />;
    case "tuple": return <Tuple field={field} draft={draft} onChange={onChange} {...rest} />;
    case "variant": return <Variant field={field} draft={draft} label={label} onChange={onChange} {...rest} />;
  }
}

function Members({ field, draft, path, faults, label, onChange }: Shown<Of<"object">> & { label: string }) {
  const now = draft.is === "members" ? draft : { is: "members" as const, given: {}, more: "" };
  const put = (name: string, one: Draft | undefined): void => onChange({ ...now, given: { ...now.given, [name]: one } });
  const more = faults.filter((fault) => fault.path === `${path}/…`);
  return (
    <>
      {field.members.length || field.open ? null : <p class="about">Nothing to fill in.</p>}
      {field.members.map((member) => (
        <MemberOf key={member.name} member={member} draft={Object.hasOwn(now.given, member.name) ? now.given[member.name] : undefined}
          path={`${path}/${member.name}`} faults={faults} onChange={(one) => put(member.name, one)} />
      ))}
      {field.open ? (
        <div class="one">
          <label>More members, as JSON
            <textarea class="field mono" rows={1} spellcheck={false} aria-label={`More members of ${label}, as JSON`} value={now.more}
              onInput={(event) => onChange({ ...now, more: event.currentTarget.value })} />
          </label>
          {more.map(({ text }) => <span key={text} class="fault" role="alert">{text}</span>)}
        </div>
      ) : null}
    </>
  );
}

function MemberOf({ member: { name, required, field }, draft, path, faults, onChange }: {
  member: Member;
  draft: Draft | undefined;
  path: string;
  faults: readonly Fault[];
  onChange: (draft: Draft | undefined) => void;
}) {
  if (required && draft) return <FieldOf field={field} draft={draft} name={name} path={path} faults={faults} onChange={onChange} />;
  return (
    <div class="optional">
      <label class="given">
        <input type="checkbox" checked={draft !== undefined} aria-label={`give ${name}`} onChange={(event) => onChange(event.currentTarget.checked ? draftOf(field) : undefined)} />
        {draft === undefined ? <span class="soft">{name}</span> : null}
      </label>
      {draft === undefined
        ? <span class="about">{notesOf(field)}</span>
        : <FieldOf field={field} draft={draft} name={name} path={path} faults={faults} onChange={onChange} />}
    </div>
  );
}

function Items({ field, draft, path, faults, label, onChange }: Shown<Of<"list">> & { label: string }) {
  const items = draft.is === "items" ? draft.items : [];
  const full = field.most !== null && items.length >= field.most;
  return (
    <>
      {items.map((item, place) => (
        <div key={place} class="item">
          <FieldOf field={field.item} draft={item} name={String(place)} path={`${path}/${place}`} faults={faults} onChange={(one) => onChange({ is: "items", items: items.with(place, one) })} />
          <button type="button" class="button" aria-label={`Remove item ${place} of ${label}`} disabled={items.length <= field.least}
            onClick={() => onChange({ is: "items", items: items.toSpliced(place, 1) })}>✕</button>
        </div>
      ))}
      <button type="button" class="button" aria-label={`Add an item to ${label}`} disabled={full} onClick={() => onChange({ is: "items", items: [...items, draftOf(field.item)] })}>+ item</button>
    </>
  );
}

function Tuple({ field, draft, path, faults, onChange }: Shown<Of<"tuple">>) {
  const items = field.items.map((item, place) => (draft.is === "items" ? draft.items[place] : undefined) ?? draftOf(item));
  return (
    <>
      {field.items.map((item, place) => (
        <FieldOf key={place} field={item} draft={items[place] ?? draftOf(item)} name={item.title || String(place)} path={`${path}/${place}`} faults={faults}
          onChange={(one) => onChange({ is: "items", items: items.with(place, one) })} />
      ))}
    </>
  );
}

function Variant({ field, draft, path, faults, label, onChange }: Shown<Of<"variant">> & { label: string }) {
  const place = draft.is === "option" ? draft.place : 0;
  const option = field.options[place];
  return (
    <>
      <select class="field" aria-label={`Kind of ${label}`} value={String(place)} onChange={(event) => onChange(optionOf(field, Number(event.currentTarget.value)))}>
        {field.options.map((one, at) => <option key={at} value={String(at)}>{nameOf(one, at)}</option>)}
      </select>
      {option && draft.is === "option"
        ? <FieldOf field={option} draft={draft.draft} name="" path={path} faults={faults} onChange={(one) => onChange({ is: "option", place, draft: one })} />
        : null}
    </>
  );
}

function nameOf(field: Field, place: number): string {
  if (field.title) return field.title;
  if (field.is === "fixed") return JSON.stringify(field.value);
  if (field.is === "number") return field.whole ? "whole number" : "number";
  return `${words(field.is)}${field.is === "object" ? ` ${place + 1}` : ""}`;
}

