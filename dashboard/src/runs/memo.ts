import { Component, type ComponentChild, type ComponentType, createElement } from "preact";

/** A component that is drawn again only when one of its properties is another one. */
export function memo<P extends object>(Drawn: (props: P) => ComponentChild): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const [before, now] = [this.props as Record<string, unknown>, next as Record<string, unknown>];
      return Object.keys({ ...before, ...now }).some((key) => before[key] !== now[key]);
    }

    override render(): ComponentChild {
      return createElement(Drawn, this.props);
    }
  };
}
